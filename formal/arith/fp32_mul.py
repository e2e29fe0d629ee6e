"""The multiplier gives the number nearest to the exact product, in a narrow format; in binary32 powers of two are exact."""

from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.fp32 import FP32, Format
from nibblecore.hdl.arith.fp32_mul import Fp32Mul

from .fp32 import assert_nearest, delayed, infinity, is_infinity, is_nan, magnitude, quiet_nan

__all__ = ["PROOFS"]

NARROW = Format(exponent_bits=4, fraction_bits=2)
_ONE = 127 << 23


class Fp32MulSpec(wiring.Component):
    """Any operands in any cycles, under any reset: the exact product in integers, rounded by comparison with both neighbours.

    With `fault`, a subnormal factor counts as zero.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"i_valid": In(1), "a": In(NARROW.width), "b": In(NARROW.width)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = Fp32Mul(NARROW)
        a_in: Value = self.a
        if self.fault:
            a_in = Mux(self.a[NARROW.fraction_bits : -1] == 0, self.a & 1 << (NARROW.width - 1), self.a)
        m.d.comb += [dut.i_valid.eq(self.i_valid), dut.a.eq(a_in), dut.b.eq(self.b)]
        a, b = (delayed(m, value, dut.LATENCY, name) for name, value in (("a", self.a), ("b", self.b)))
        valid = delayed(m, self.i_valid, dut.LATENCY, "valid", reset_less=False)
        a_magnitude, b_magnitude = magnitude(m, a[:-1], NARROW, "a_value"), magnitude(m, b[:-1], NARROW, "b_value")
        exact = Signal(2 * len(a_magnitude))
        m.d.comb += [exact.eq(a_magnitude * b_magnitude), Assert(dut.o_valid == valid)]
        a_infinity, b_infinity = is_infinity(a, NARROW), is_infinity(b, NARROW)
        with m.If(valid):
            with m.If(is_nan(a, NARROW) | is_nan(b, NARROW) | ((a_infinity | b_infinity) & ((a[:-1] == 0) | (b[:-1] == 0)))):
                m.d.comb += Assert(dut.o == quiet_nan(NARROW))
            with m.Else():
                m.d.comb += Assert(dut.o[-1] == a[-1] ^ b[-1])
                with m.If(a_infinity | b_infinity):
                    m.d.comb += Assert(dut.o[:-1] == infinity(NARROW))
                with m.Else():
                    # The product is in units of the smallest number squared.
                    assert_nearest(m, dut.o[:-1], exact, NARROW, scale=NARROW.bias - 1 + NARROW.fraction_bits)
                    m.d.comb += [
                        Cover(dut.o[:-1] == infinity(NARROW)),
                        Cover((dut.o[:-1] == 1) & (a[:-1] > 2**NARROW.fraction_bits) & (b[:-1] > 2**NARROW.fraction_bits)),
                    ]
        return m


class PowerOfTwoSpec(wiring.Component):
    """In binary32: the factor 1 gives back any number, 2 and 1/2 change the exponent alone while both are normal."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"a": In(FP32.width), "step": In(2), "minus": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = Fp32Mul()
        b = Signal(FP32.width)
        m.d.comb += [
            b.eq((_ONE + (self.step << 23) - (0 if self.fault else 1 << 23)) | self.minus << 31),
            dut.a.eq(self.a),
            dut.b.eq(b),
        ]
        a, step, minus = (
            delayed(m, value, dut.LATENCY, name) for name, value in (("a", self.a), ("step", self.step), ("minus", self.minus))
        )
        filled = Signal(range(dut.LATENCY + 1))
        exponent, moved = a[23:-1], Signal(FP32.width)
        m.d.comb += moved.eq((a + (step << 23) - (1 << 23)) ^ minus << 31)
        with m.If(filled != dut.LATENCY):
            m.d.sync += filled.eq(filled + 1)
        with m.Elif(is_nan(a, FP32)):
            m.d.comb += Assert(dut.o == quiet_nan(FP32))
        with m.Elif((step == 1) | ((exponent > 1) & (exponent < 252))):
            m.d.comb += [
                Assert(dut.o == moved),
                Cover((step == 0) & (dut.o == 0x80800001)),
                Cover((step == 1) & (dut.o == 0x80000001)),
            ]
        return m


PROOFS = [
    Proof(
        name="arith.fp32_mul.nearest",
        spec=Fp32MulSpec,
        fault=lambda: Fp32MulSpec(fault=True),
        engine="induction",
        depth=Fp32Mul.LATENCY + 1,
        cover_depth=Fp32Mul.LATENCY + 1,
        reason="a pipeline without feedback: a window of its length is every run; 4 bits of exponent and 2 of fraction, because "
        "products of 24 bits are beyond the solvers",
    ),
    Proof(
        name="arith.fp32_mul.power_of_two",
        spec=PowerOfTwoSpec,
        fault=lambda: PowerOfTwoSpec(fault=True),
        engine="bmc",
        depth=Fp32Mul.LATENCY + 1,
        cover_depth=Fp32Mul.LATENCY + 1,
        reason="a pipeline without feedback, so the cycles that fill it are everything",
    ),
]
