"""The processing element of Cambricon-Q's array: four stored weight nibbles and a 4×4 multiplier."""

from amaranth import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

__all__ = ["PLANES", "Pe", "product_offset"]

PLANES = 4
"""Weight nibbles a PE holds in each of its two sets."""


def product_offset(a_signed: bool, w_signed: bool) -> int:
    """What ``product`` holds above a·w for these signs of the operands."""
    return 56 * (a_signed + w_signed) + 64 * (a_signed != w_signed)


@emit_once
class Pe(wiring.Component):
    """A nibble of the input times one of four stored nibbles, a product every cycle (paper, Section IV-D).

    ``product`` = a·w + `product_offset` (a_signed, w_signed), 0..225 for any signs: 8 bits, and a tree of adders above needs no
    sign extension. Whoever sums M of them takes M offsets away, once. The offset is what Baugh and Wooley's form of a signed
    product adds: each partial product of negative weight is inverted.

    Weights stand in two sets. ``load`` writes ``line`` into planes of the shadow set; ``swap`` copies the whole shadow set into the
    active one, as it was before a load in the same cycle. Products are of the active set; they see a swap in the cycle after it.

    Latency: one cycle from ``a``, ``select`` and the signs to ``product``. Throughput: a product a cycle, and a load and a swap beside it.
    No reset: stored weights stay through one.

    Members
    -------
    line : In(4)
        A weight nibble to store.
    load : In(4)
        Planes of the shadow set that take ``line``, a bit a plane.
    swap : In(1)
    select : In(4)
        The plane of the active set to multiply with, one-hot. With none, w is 0.
    a : In(4)
        A nibble of the input.
    a_signed, w_signed : In(1)
        Whether the nibbles are two's complement.
    product : Out(8)
        Unsigned.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "line": In(4),
                "load": In(PLANES),
                "swap": In(1),
                "select": In(PLANES),
                "a": In(4),
                "a_signed": In(1),
                "w_signed": In(1),
                "product": Out(8),
            }
        )
        # Attributes so that proofs can see what is stored.
        self.shadow = [Signal(4, name=f"shadow{plane}", reset_less=True) for plane in range(PLANES)]
        self.active = [Signal(4, name=f"active{plane}", reset_less=True) for plane in range(PLANES)]

    @property
    def module_name(self) -> str:
        return "cambriconq_pe"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for plane in range(PLANES):
            with m.If(self.load[plane]):
                m.d.sync += self.shadow[plane].eq(self.line)
        with m.If(self.swap):
            m.d.sync += Cat(self.active).eq(Cat(self.shadow))

        # One-hot, because an AND-OR of four is two thirds of a multiplexer of four.
        w = Signal(4)
        chosen = [Signal(4, name=f"chosen{plane}") for plane in range(PLANES)]
        m.d.comb += [chosen[plane].eq(self.active[plane] & self.select[plane].replicate(4)) for plane in range(PLANES)]
        m.d.comb += w.eq(chosen[0] | chosen[1] | chosen[2] | chosen[3])

        product = Signal(8, reset_less=True)
        m.d.sync += product.eq(self._product(m, w))
        m.d.comb += self.product.eq(product)
        return m

    def _product(self, m: Module, w: Signal) -> Value:
        """The sum of a row of partial products for each bit of `w`; those whose weight is negative come inverted."""
        rows = [Signal(4, name=f"row{place}") for place in range(4)]
        for place, row in enumerate(rows):
            top = place == 3
            inverted = Cat(
                (self.w_signed if top else Const(0)).replicate(3), self.a_signed ^ self.w_signed if top else self.a_signed
            )
            m.d.comb += row.eq((self.a & w[place].replicate(4)) ^ inverted)
        return rows[0] + (rows[1] << 1) + (rows[2] << 2) + (rows[3] << 3)
