"""IEEE 754 binary32 addition."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .fp32 import FP32, Format, unpack
from .fp32_round import Fp32Round

__all__ = ["Fp32Add"]

_BELOW = 3
"""Bits kept below the larger operand's significand: two that a subtraction can bring up and one for all the rest."""


@emit_once
class Fp32Add(wiring.Component):
    """``o`` = ``a`` + ``b``, rounded to nearest, ties to even. To subtract, invert the sign bit of ``b``.

    Subnormal numbers in and out, signed zeros and infinities as in the standard; every NaN result is 0x7FC00000. No flags.

    One path: the operand of smaller magnitude is aligned to the other, so the difference is never negative.

    Latency: `LATENCY` = 3 cycles. Throughput: one sum a cycle; nothing ever waits. Without ``o_valid`` a result means nothing.

    Parameters
    ----------
    format : Format
        Of operands and result; `FP32` but in proofs.

    Members
    -------
    i_valid : In(1)
        There is a pair of operands.
    a, b : In(format.width)
        32 bits of binary32, the sign uppermost.
    o_valid : Out(1)
        ``i_valid``, `LATENCY` cycles later.
    o : Out(format.width)
        The sum; for one cycle.
    """

    LATENCY = 1 + Fp32Round.LATENCY

    def __init__(self, format: Format = FP32) -> None:
        self.format = format
        super().__init__(
            {"i_valid": In(1), "a": In(format.width), "b": In(format.width), "o_valid": Out(1), "o": Out(format.width)}
        )

    @property
    def module_name(self) -> str:
        return f"fp_add_{self.format.suffix}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.format.significand_bits + _BELOW
        m.submodules.round = round_ = Fp32Round(
            width + 1, max_left=width, right=False, exponent_width=self.format.exponent_bits + 2, format=self.format
        )

        # Stage 0: order and align.
        swap = Signal()
        large_bits = Signal(self.format.width)
        small_bits = Signal(self.format.width)
        m.d.comb += [
            swap.eq(self.a[:-1] < self.b[:-1]),
            large_bits.eq(Mux(swap, self.b, self.a)),
            small_bits.eq(Mux(swap, self.a, self.b)),
        ]
        large, small = unpack(m, large_bits, self.format, "large"), unpack(m, small_bits, self.format, "small")
        distance = Signal(self.format.exponent_bits)
        subtract = Signal()
        m.d.comb += [distance.eq(large.exponent - small.exponent), subtract.eq(large.sign ^ small.sign)]
        stage1_large = Signal(self.format.significand_bits, reset_less=True)
        stage1_small = Signal(width, reset_less=True)
        stage1_exponent = Signal(signed(self.format.exponent_bits + 2), reset_less=True)
        stage1_sign = Signal(reset_less=True)
        stage1_subtract = Signal(reset_less=True)
        stage1_infinity = Signal(reset_less=True)
        stage1_nan = Signal(reset_less=True)
        valid = Signal(self.LATENCY)
        m.d.sync += [
            stage1_large.eq(large.significand),
            stage1_small.eq(self._align(m, small.significand, distance, width)),
            # The sum's uppermost bit is its carry.
            stage1_exponent.eq(large.exponent + 1),
            stage1_sign.eq(large.sign),
            stage1_subtract.eq(subtract),
            # Infinity and NaN have the largest magnitudes, NaN above infinity.
            stage1_infinity.eq(large.infinity),
            stage1_nan.eq(large.nan | (small.infinity & subtract)),
            valid.eq(Cat(self.i_valid, valid)),
        ]

        # Stage 1: add; an exact zero of two signs is positive.
        total = Signal(width + 1)
        m.d.comb += [
            total.eq((stage1_large << _BELOW) + (stage1_small ^ stage1_subtract.replicate(width)) + stage1_subtract),
            round_.i.eq(Cat(total[:width], total[width] & ~stage1_subtract)),
            round_.exponent.eq(stage1_exponent),
            round_.sign.eq(stage1_sign),
            round_.positive_zero.eq(stage1_subtract),
            round_.infinity.eq(stage1_infinity),
            round_.nan.eq(stage1_nan),
            self.o.eq(round_.o),
            self.o_valid.eq(valid[-1]),
        ]
        return m

    def _align(self, m: Module, significand: Value, distance: Value, width: int) -> Value:
        """`significand` with zeros below it to `width` bits, shifted right; the lowest bit stands for all that is shifted out."""
        value: Value = Cat(Const(0, width - len(significand)), significand)
        steps = (width - 1).bit_length()
        lost = []
        for place in range(steps):
            step = 2**place
            chosen = distance[place] if place < len(distance) else Const(0, 1)
            shifted = Signal(width, name=f"aligned{step}")
            m.d.comb += shifted.eq(Mux(chosen, value >> step, value))
            lost.append(chosen & value[:step].any())
            value = shifted
        gone = Signal()
        m.d.comb += gone.eq(distance[steps:].any())
        return Mux(gone, significand.any(), Cat(value[0] | Cat(lost).any(), value[1:]))
