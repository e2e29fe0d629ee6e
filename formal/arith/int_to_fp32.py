"""The conversion gives the number nearest to integer · 2^exponent, in a narrow format."""

from typing import Any

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.fp32 import Format
from nibblecore.hdl.arith.int_to_fp32 import IntToFp32

from .fp32 import assert_nearest, delayed, infinity

__all__ = ["PROOFS"]

NARROW = Format(exponent_bits=4, fraction_bits=2)
WIDTH = 8
_LEAST = -(2**5)


class IntToFp32Spec(wiring.Component):
    """Any integers and exponents in any cycles, under any reset. With `fault`, negative ones are complemented instead of
    negated."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"i_valid": In(1), "i": In(signed(WIDTH)), "exponent": In(signed(6))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = IntToFp32(WIDTH, 6, NARROW)
        i_in: Value = self.i
        if self.fault:
            i_in = Mux(self.i < 0, self.i + 1, self.i)
        m.d.comb += [dut.i_valid.eq(self.i_valid), dut.i.eq(i_in), dut.exponent.eq(self.exponent)]
        i, exponent = delayed(m, self.i, dut.LATENCY, "i"), delayed(m, self.exponent, dut.LATENCY, "exponent")
        valid = delayed(m, self.i_valid, dut.LATENCY, "valid", reset_less=False)
        # In units of the least exponent's power of two.
        absolute, places, exact = Signal(WIDTH), Signal(6), Signal(WIDTH + 63)
        m.d.comb += [
            absolute.eq(Mux(i < 0, -i, i)),
            places.eq(exponent - _LEAST),
            exact.eq(absolute << places),
            Assert(dut.o_valid == valid),
        ]
        with m.If(valid):
            m.d.comb += Assert(dut.o[-1] == (i < 0))
            assert_nearest(m, dut.o[:-1], exact, NARROW, scale=-_LEAST - (NARROW.bias - 1 + NARROW.fraction_bits))
            m.d.comb += [
                Cover((dut.o[:-1] == infinity(NARROW)) & (i == 3)),
                Cover(dut.o[-1] & (dut.o[:-1] == 1) & (i == -64)),
                Cover((dut.o == 0) & (i == 127)),
            ]
        return m


PROOFS = [
    Proof(
        name="arith.int_to_fp32.nearest",
        spec=IntToFp32Spec,
        fault=lambda: IntToFp32Spec(fault=True),
        engine="induction",
        depth=IntToFp32.LATENCY + 1,
        cover_depth=IntToFp32.LATENCY + 1,
        reason="a pipeline without feedback: a window of its length is every run; integers of 8 bits, exponents of 6, results with "
        "4 bits of exponent and 2 of fraction, to keep the exact values short",
    )
]
