"""The conversion gives the nearest integer within the clip, halves away from zero, for every binary32 number."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.fp32 import FP32
from nibblecore.hdl.arith.fp32_to_fixed import Fp32ToFixed

from .fp32 import delayed, is_infinity, is_nan

__all__ = ["PROOFS"]

# Shifted further, no number reaches one half.
_FAR = 25


class Fp32ToFixedSpec(wiring.Component):
    """Any inputs in any cycles, under any reset. With y = |i|·2^−exponent and q the magnitude of the result:

        q = 0 or q − 1/2 ≤ y;   q = Qmax or y < q + 1/2

    With `fault`, halves are rounded down.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"i_valid": In(1), "i": In(32), "exponent": In(8), "nibbles": In(2)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = Fp32ToFixed()
        m.d.comb += [dut.i_valid.eq(self.i_valid), dut.i.eq(self.i), dut.exponent.eq(self.exponent), dut.nibbles.eq(self.nibbles)]
        i, tag, nibbles = (
            delayed(m, value, dut.LATENCY, name)
            for name, value in (("i", self.i), ("exponent", self.exponent), ("nibbles", self.nibbles))
        )
        valid = delayed(m, self.i_valid, dut.LATENCY, "valid", reset_less=False)
        field, fraction = i[23:-1], i[:23]
        significand: Value = Mux(field == 0, fraction, Cat(fraction, 1))
        # y = significand · 2^−places.
        places: Value = tag.as_signed() + 150 - Mux(field == 0, 1, field)
        right = Signal(range(_FAR + 1))
        limit, q, twice_y, twice_q = Signal(16), Signal(16), Signal(26), Signal(17)
        m.d.comb += [
            right.eq(Mux(places > _FAR, _FAR, places)),
            limit.eq((8 << (nibbles << 2)) - 1),
            q.eq(Mux(dut.o < 0, -dut.o, dut.o)),
            twice_y.eq(significand << 1),
            twice_q.eq(q << 1),
            Assert(dut.o_valid == valid),
        ]
        special = is_nan(i, FP32) | is_infinity(i, FP32)
        with m.If(valid):
            m.d.comb += [Assert(dut.special == special), Assert(q <= limit), Assert((q == 0) | (i[-1] == (dut.o < 0)))]
            with m.If(is_nan(i, FP32)):
                m.d.comb += Assert(q == 0)
            with m.Elif(is_infinity(i, FP32) | (places < 0)):
                m.d.comb += Assert(q == limit)
            with m.Else():
                enough: Value = ((twice_q - 1).as_unsigned()[:17] << right) <= twice_y
                if self.fault:
                    enough = ((twice_q - 1).as_unsigned()[:17] << right) < twice_y
                m.d.comb += [
                    Assert((q == 0) | enough),
                    Assert((q == limit) | (twice_y < ((twice_q + 1) << right))),
                    Cover((q == 5) & (((twice_q - 1).as_unsigned()[:17] << right) == twice_y) & i[-1]),
                    Cover((q == 2047) & (right == 13)),
                ]
        return m


PROOFS = [
    Proof(
        name="arith.fp32_to_fixed.nearest",
        spec=Fp32ToFixedSpec,
        fault=lambda: Fp32ToFixedSpec(fault=True),
        engine="induction",
        depth=Fp32ToFixed.LATENCY + 1,
        cover_depth=Fp32ToFixed.LATENCY + 1,
        reason="a pipeline without feedback: a window of its length is every run; nothing is narrowed",
    )
]
