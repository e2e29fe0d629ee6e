"""The rounding shift equals adding half a divisor and dividing, in numbers wide enough for both."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.rounding_shift import RoundingShift

__all__ = ["PROOFS"]

WIDTH, MAX_SHIFT = 16, 20


class TruncatingShift(RoundingShift):
    """Forgets to round."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.o.eq(self.i >> self.shift)
        return m


class RoundingShiftSpec(wiring.Component):
    """Both inputs are free."""

    def __init__(self, block: type[RoundingShift] = RoundingShift) -> None:
        self.block = block
        super().__init__({"i": In(WIDTH), "shift": In(range(MAX_SHIFT + 1))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = self.block(WIDTH, MAX_SHIFT)
        half = Signal(2 ** len(self.shift))
        m.d.comb += [
            dut.i.eq(self.i), dut.shift.eq(self.shift),
            half.eq(Mux(self.shift == 0, 0, 1 << (self.shift - 1)[: len(self.shift)])),
            Assert(dut.o == (self.i + half) >> self.shift),
            Cover((self.shift == WIDTH) & (dut.o == 1)), Cover((self.shift == 1) & (dut.o == 2 ** (WIDTH - 1))),
        ]  # fmt: skip
        return m


PROOFS = [
    Proof(name="arith.rounding_shift.formula", spec=RoundingShiftSpec, fault=lambda: RoundingShiftSpec(TruncatingShift),
          engine="bmc", depth=1, cover_depth=1, reason="combinational: one step is every input"),
]  # fmt: skip
