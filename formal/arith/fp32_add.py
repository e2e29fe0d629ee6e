"""The adder gives the number nearest to the exact sum, in a narrow format; in binary32 0 is neutral."""

from typing import Any

from amaranth import Module, Mux, Signal, signed
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.fp32 import FP32, Format
from nibblecore.hdl.arith.fp32_add import Fp32Add

from .fp32 import assert_nearest, delayed, infinity, is_infinity, is_nan, magnitude, quiet_nan

__all__ = ["PROOFS"]

NARROW = Format(exponent_bits=4, fraction_bits=2)


class ForgetsSticky(Fp32Add):
    """Cuts off what alignment shifts out."""

    def _align(self, m: Module, significand: Any, distance: Any, width: int) -> Any:
        return (significand << (width - len(significand)))[:width] >> distance


class Fp32AddSpec(wiring.Component):
    """Any operands in any cycles, under any reset: the exact sum in integers, rounded by comparison with both neighbours."""

    def __init__(self, block: type[Fp32Add] = Fp32Add) -> None:
        self.block = block
        super().__init__({"i_valid": In(1), "a": In(NARROW.width), "b": In(NARROW.width)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = self.block(NARROW)
        m.d.comb += [dut.i_valid.eq(self.i_valid), dut.a.eq(self.a), dut.b.eq(self.b)]
        a, b = (delayed(m, value, dut.LATENCY, name) for name, value in (("a", self.a), ("b", self.b)))
        valid = delayed(m, self.i_valid, dut.LATENCY, "valid", reset_less=False)
        a_magnitude, b_magnitude = magnitude(m, a[:-1], NARROW, "a_value"), magnitude(m, b[:-1], NARROW, "b_value")
        total, exact = Signal(signed(len(a_magnitude) + 2)), Signal(len(a_magnitude) + 1)
        m.d.comb += [
            total.eq(Mux(a[-1], -a_magnitude, a_magnitude) + Mux(b[-1], -b_magnitude, b_magnitude)),
            exact.eq(Mux(total < 0, -total, total)),
            Assert(dut.o_valid == valid),
        ]
        a_infinity, b_infinity = is_infinity(a, NARROW), is_infinity(b, NARROW)
        with m.If(valid):
            with m.If(is_nan(a, NARROW) | is_nan(b, NARROW) | (a_infinity & b_infinity & (a[-1] != b[-1]))):
                m.d.comb += Assert(dut.o == quiet_nan(NARROW))
            with m.Elif(a_infinity | b_infinity):
                m.d.comb += Assert(dut.o == Mux(a_infinity, a, b))
            with m.Else():
                m.d.comb += Assert(dut.o[-1] == Mux(total == 0, a[-1] & b[-1], total < 0))
                assert_nearest(m, dut.o[:-1], exact, NARROW)
                m.d.comb += [
                    Cover(dut.o[:-1] == infinity(NARROW)),
                    Cover(dut.o[-1] & (dut.o[:-1] == 1) & (a[:-1] > 2**NARROW.fraction_bits)),
                ]
        return m


class NeutralSpec(wiring.Component):
    """In binary32, for any a: a + ±0 = a but for zero and NaN, ±0 + a the same, and a + −a = +0 of a finite a."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"a": In(FP32.width), "other": In(2), "swap": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = Fp32Add()
        minus = 1 << 31
        b = Signal(FP32.width)
        # Other: 0, −0, −a.
        m.d.comb += [
            b.eq(Mux(self.other[1], self.a ^ minus, self.other[0] << 31)),
            dut.a.eq(Mux(self.swap, b, self.a)),
            dut.b.eq(Mux(self.swap, self.a, b)),
        ]
        if self.fault:
            m.d.comb += dut.b.eq(Mux(self.swap, self.a, b ^ 1))
        a, other = delayed(m, self.a, dut.LATENCY, "a"), delayed(m, self.other, dut.LATENCY, "other")
        filled = Signal(range(dut.LATENCY + 1))
        with m.If(filled != dut.LATENCY):
            m.d.sync += filled.eq(filled + 1)
        with m.Elif(is_nan(a, FP32) | (other[1] & is_infinity(a, FP32))):
            m.d.comb += Assert(dut.o == quiet_nan(FP32))
        with m.Elif(other[1]):
            m.d.comb += [Assert(dut.o == 0), Cover(a == 0x80000001)]
        with m.Elif(a[:-1] != 0):
            m.d.comb += [Assert(dut.o == a), Cover(a == 0x80000001), Cover((a == 0x7F7FFFFF) & (other == 1))]
        return m


PROOFS = [
    Proof(
        name="arith.fp32_add.nearest",
        spec=Fp32AddSpec,
        fault=lambda: Fp32AddSpec(ForgetsSticky),
        engine="induction",
        depth=Fp32Add.LATENCY + 1,
        cover_depth=Fp32Add.LATENCY + 1,
        reason="a pipeline without feedback: a window of its length is every run; 4 bits of exponent and 2 of fraction, because the "
        "exact sums of binary32 have 277 bits",
    ),
    Proof(
        name="arith.fp32_add.neutral",
        spec=NeutralSpec,
        fault=lambda: NeutralSpec(fault=True),
        engine="bmc",
        depth=Fp32Add.LATENCY + 1,
        cover_depth=Fp32Add.LATENCY + 1,
        reason="a pipeline without feedback, so the cycles that fill it are everything",
    ),
]
