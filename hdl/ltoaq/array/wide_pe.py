"""Processing element of the wide array: the products of four or eight lanes and a 32-bit accumulator."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .pair_packer import FIELD, LANE_BITS, PairPacker

__all__ = ["DRAIN_BITS", "LANE_BITS", "WidePe", "word_bits"]

DRAIN_BITS = 33
"""A result on the drain bus: the 32-bit accumulator, and above it the overflow flag of its pass."""


def word_bits(lanes: int, paired: bool = False) -> int:
    """Bits of a word of A or W on its way through the array."""
    return PairPacker.WORD_BITS if paired else lanes * LANE_BITS


@emit_once
class WidePe(wiring.Component):
    """Multiplies the lanes of one word of A and W a cycle and sums them up; output-stationary.

    A lane is a 6-bit signed integer. With p_i = a_i·w_i a word adds to the accumulator

        4-bit mode:  p_0 + p_1 + p_2 + p_3
        8-bit mode:  p_0 + (p_1 + p_2)·2^5 + p_3·2^10

    so that in 8-bit mode the lanes (A_L, A_H, A_L, A_H) and (W_L, W_L, W_H, W_H) of 11-bit operands A = A_H·2^5 + A_L give A·W
    (equation 5 of the paper, with halves of 5 and 6 bits). Low halves must lie in 0..31: p_0 is taken to fit 10 bits. Of eight
    lanes the upper four add the same once more: eight products in 4-bit mode, two in 8-bit mode.

    Paired, the words are those of `PairPacker`, and two multipliers of 18 × 18 bits do the work of four of 6 × 6. The low multiplicands'
    product is below bit 12 of a product, and borrows from the sum above it where it is negative: that is its sign, bit 11. In 8-bit mode the
    inner product is 0 and the outer one A·W·2^12. In 4-bit mode lanes must lie in −31..31: of the sums of two products only one, 2·32², would
    not fit the 12 bits between the low and the high multiplicands' product.

    Results are 32 bits and wrap. A word whose sum leaves −2^31..2^31−1 raises the overflow flag, which stays until the pass ends.

    A word with ``boundary`` is the first of a pass: it puts the accumulator and flag of the pass before it on the drain bus
    and restarts the accumulator with its own sum. There is no result register: in every other cycle the bus passes
    through. Two results must never meet; they would be mixed bit by bit.

    Only ``boundary`` is reset; what the accumulator holds before the first boundary means nothing. Idle words are zero.

    Latency: ``a_next``, ``w_next``, ``boundary_next`` follow their inputs by one cycle, and in that same cycle the result of the
    pass that ``boundary`` closed is on ``drain_out``. Throughput: a word a cycle.

    Parameters
    ----------
    lanes : int
        4 or 8; ValueError otherwise.
    paired : bool
        Two products a multiplier; ValueError with eight lanes.

    Members
    -------
    a, w : In(word_bits(lanes, paired))
        Lane 0 least significant; paired, what `PairPacker` makes of them.
    boundary : In(1)
    eight_bit : In(1)
        Constant from one cycle after a word other than zero enters until it has been summed; free while words are zero.
    a_next : Out(word_bits(lanes, paired))
    boundary_next : Out(1)
        To the PE on the right.
    w_next : Out(word_bits(lanes, paired))
        To the PE below.
    drain_in : In(33)
        From the PE below, combinational.
    drain_out : Out(33)
        To the PE above: the accumulator, and the overflow flag in bit 32.
    """

    _LOW_BITS = LANE_BITS - 1

    def __init__(self, lanes: int = 4, paired: bool = False) -> None:
        if lanes not in (4, 8):
            raise ValueError(f"lanes must be 4 or 8, not {lanes}")
        if paired and lanes != 4:
            raise ValueError("paired products need four lanes")
        self.lanes, self.paired = lanes, paired
        word = word_bits(lanes, paired)
        super().__init__(
            {
                "a": In(word),
                "w": In(word),
                "boundary": In(1),
                "eight_bit": In(1),
                "a_next": Out(word),
                "w_next": Out(word),
                "boundary_next": Out(1),
                "drain_in": In(DRAIN_BITS),
                "drain_out": Out(DRAIN_BITS),
            }
        )
        # Attributes so that the proof can see the state that shows on the bus only at a boundary.
        self.accumulator = Signal(signed(32), reset_less=True)
        self.overflow = Signal(reset_less=True)

    @property
    def module_name(self) -> str:
        return f"wide_pe_{self.lanes}{'_paired' * self.paired}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = Signal.like(self.a, reset_less=True)
        w = Signal.like(self.w, reset_less=True)
        boundary = Signal()
        m.d.sync += [a.eq(self.a), w.eq(self.w), boundary.eq(self.boundary)]
        m.d.comb += [self.a_next.eq(a), self.w_next.eq(w), self.boundary_next.eq(boundary)]

        word_sum, carry = self._paired_sum(m, a, w) if self.paired else (self._word_sum(m, a, w), None)
        kept = Signal(signed(32))
        total = Signal(signed(33))
        m.d.comb += [
            kept.eq(Mux(boundary, 0, self.accumulator)),
            total.eq(kept + word_sum if carry is None else _add(kept, word_sum, carry)),
        ]
        m.d.sync += [self.accumulator.eq(total), self.overflow.eq((self.overflow & ~boundary) | (total[32] != total[31]))]
        m.d.comb += self.drain_out.eq(self.drain_in | Mux(boundary, Cat(self.accumulator, self.overflow), 0))
        return m

    def _word_sum(self, m: Module, a: Signal, w: Signal) -> Signal:
        products = [Signal(signed(12), name=f"product{lane}") for lane in range(self.lanes)]
        for lane, product in enumerate(products):
            m.d.comb += product.eq(a.word_select(lane, LANE_BITS).as_signed() * w.word_select(lane, LANE_BITS).as_signed())
        pairs = self.lanes == 8
        low, high = (Signal(signed(12 + pairs), name=name) for name in ("low", "high"))
        middle = Signal(signed(13 + pairs))
        m.d.comb += [
            low.eq(sum(products[4::4], products[0])),
            high.eq(sum(products[7::4], products[3])),
            middle.eq(sum(products[5::4] + products[6::4], products[1] + products[2])),
        ]
        # The outer products meet in an adder only in 4-bit mode: in 8-bit mode the low ones fit below the high ones and are set
        # beside them, but for the last bit of two low ones' sum.
        split = 2 * self._LOW_BITS
        outer_sum = Signal(signed(13 + pairs))
        outer, word_sum = (Signal(signed(22 + pairs), name=name) for name in ("outer", "word_sum"))
        over = (self.eight_bit & low[split]) << split if pairs else Const(0)
        m.d.comb += [
            outer_sum.eq(low + Mux(self.eight_bit, 0, high)),
            outer.eq(Cat(outer_sum[:split], Mux(self.eight_bit, high, outer_sum[split:].as_signed())).as_signed()),
            word_sum.eq(outer + Mux(self.eight_bit, middle << self._LOW_BITS, middle) + over),
        ]
        return word_sum

    def _paired_sum(self, m: Module, a: Signal, w: Signal) -> tuple[Signal, Value]:
        """A word's sum but for a carry into its lowest bit."""
        outer, inner = (Signal(signed(width), name=name) for name, width in (("outer", 34), ("inner", 24)))
        m.d.comb += [product.eq(value) for product, value in zip((outer, inner), self._products(a, w), strict=True)]
        # Of the sums of products in 8-bit mode only the outer one's low 12 bits go through this adder.
        both = Signal(signed(FIELD + 1))
        word_sum = Signal(signed(22))
        borrows = outer[FIELD - 1], inner[FIELD - 1]
        m.d.comb += [
            both.eq(_add(outer[FIELD : 2 * FIELD].as_signed(), inner[FIELD : 2 * FIELD].as_signed(), borrows[0])),
            word_sum.eq(Cat(both[:FIELD], Mux(self.eight_bit, outer[2 * FIELD :], both[FIELD].replicate(10))).as_signed()),
        ]
        return word_sum, borrows[1]

    def _products(self, a: Signal, w: Signal) -> tuple[Value, Value]:
        """Of the outer and of the inner multiplicands."""
        (outer_a, inner_a), (outer_w, inner_w) = (PairPacker.multiplicands(word) for word in (a, w))
        return outer_a * outer_w, inner_a * inner_w


def _add(one: Value, other: Value, carry: Value) -> Value:
    """Their sum with a carry into the lowest bit, as a single adder of one bit more."""
    return (Cat(Const(1), one).as_signed() + Cat(carry, other).as_signed()) >> 1
