"""Sign, exponent and special cases of the reciprocal square root, for every operand; its fraction is tested exhaustively."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.fp32 import FP32
from nibblecore.hdl.arith.fp32_rsqrt import Fp32Rsqrt

from .fp32 import delayed, is_infinity, is_nan, quiet_nan

__all__ = ["PROOFS"]


class Fp32RsqrtSpec(wiring.Component):
    """Any operands in any cycles, under any reset. With `fault`, the sign is not looked at."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"i_valid": In(1), "i": In(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = Fp32Rsqrt()
        m.d.comb += [dut.i_valid.eq(self.i_valid), dut.i.eq(self.i[:-1] if self.fault else self.i)]
        i = delayed(m, self.i, dut.LATENCY, "i")
        valid = delayed(m, self.i_valid, dut.LATENCY, "valid", reset_less=False)
        field, result = i[23:-1], dut.o[23:-1]
        # 2^(−(E − 127)/2) lies in the binade 127 + (127 − E)/2 or, for significands above 1, in the one below.
        least = Signal(9)
        m.d.comb += [least.eq(126 + ((127 - field) >> 1) + (field[0] == 0)), Assert(dut.o_valid == valid)]
        with m.If(valid):
            with m.If(i[:-1] == 0):
                m.d.comb += Assert(dut.o == 0)
            with m.Elif(is_nan(i, FP32) | i[-1]):
                m.d.comb += Assert(dut.o == quiet_nan(FP32))
            with m.Elif(is_infinity(i, FP32)):
                m.d.comb += Assert(dut.o == 0)
            with m.Elif(field == 0):
                # 2^63 to 2^74.5.
                m.d.comb += [Assert((result >= 189) & (result <= 202) & ~dut.o[-1]), Cover(result == 201)]
            with m.Else():
                m.d.comb += [
                    Assert(((result == least) | (result == least + 1)) & ~dut.o[-1]),
                    Cover((result == Mux(field[0], least, least + 1)) & (field == 1)),
                ]
        return m


PROOFS = [
    Proof(
        name="arith.fp32_rsqrt.special",
        spec=Fp32RsqrtSpec,
        fault=lambda: Fp32RsqrtSpec(fault=True),
        engine="induction",
        depth=Fp32Rsqrt.LATENCY + 1,
        cover_depth=Fp32Rsqrt.LATENCY + 1,
        reason="a pipeline without feedback: a window of its length is every run; the parabola's products are left to the exhaustive "
        "test of the golden model",
    )
]
