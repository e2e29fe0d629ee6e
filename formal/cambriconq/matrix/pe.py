"""The processing element against its contract: what is stored, and every product."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.matrix.pe import Pe

__all__ = ["PROOFS"]


class FaultyPe(Pe):
    """Wrong for a single pair of nibbles."""

    def _product(self, m: Module, w: Signal) -> Value:
        return super()._product(m, w) ^ (Cat(self.a, w) == 0x8F)


class PeSpec(wiring.Component):
    """Every input is free, ``rst`` too; at most one plane is selected."""

    def __init__(self, block: type[Pe] = Pe) -> None:
        self.block = block
        super().__init__(
            {"line": In(4), "load": In(4), "swap": In(1), "select": In(4), "a": In(4), "a_signed": In(1), "w_signed": In(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.pe = pe = self.block()
        m.d.comb += [getattr(pe, name).eq(getattr(self, name)) for name in self.signature.members]
        m.d.comb += Assume((self.select & (self.select - 1)) == 0)

        w = Signal(4)
        for plane in range(4):
            shadow = Signal(4, name=f"shadow{plane}", reset_less=True)
            active = Signal(4, name=f"active{plane}", reset_less=True)
            m.d.sync += [shadow.eq(Mux(self.load[plane], self.line, shadow)), active.eq(Mux(self.swap, shadow, active))]
            m.d.comb += [Assert(pe.shadow[plane] == shadow), Assert(pe.active[plane] == active)]
            with m.If(self.select[plane]):
                m.d.comb += w.eq(active)

        a_value, w_value, offset = Signal(signed(5)), Signal(signed(5)), Signal(7)
        product = Signal(signed(10), reset_less=True)
        m.d.comb += [
            a_value.eq(Cat(self.a, self.a_signed & self.a[3])),
            w_value.eq(Cat(w, self.w_signed & w[3])),
            offset.eq(Mux(self.a_signed ^ self.w_signed, 120, Mux(self.a_signed, 112, 0))),
        ]
        m.d.sync += product.eq(a_value * w_value + offset)
        m.d.comb += [Assert(pe.product == product), Cover(product == 225), Cover(product == 112 + 64)]
        return m


PROOFS = [
    Proof(
        name="cambriconq.matrix.pe.contract",
        spec=PeSpec,
        fault=lambda: PeSpec(FaultyPe),
        engine="induction",
        depth=6,
        cover_depth=6,
        reason="block and reference hold the same state, so one step carries over to the next",
    )
]
