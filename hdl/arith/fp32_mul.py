"""IEEE 754 binary32 multiplication."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .fp32 import FP32, Format, unpack
from .fp32_round import Fp32Round

__all__ = ["Fp32Mul"]


@emit_once
class Fp32Mul(wiring.Component):
    """``o`` = ``a`` · ``b``, rounded to nearest, ties to even.

    Subnormal numbers in and out, signed zeros and infinities as in the standard; every NaN result is 0x7FC00000. No flags.

    Significands are multiplied as they come and the product is normalized, so that one count of zeros and one shifter serve
    subnormal operands and subnormal results.

    Latency: `LATENCY` = 3 cycles. Throughput: one product a cycle; nothing ever waits. Without ``o_valid`` a result means nothing.

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
        The product; for one cycle.
    """

    LATENCY = 1 + Fp32Round.LATENCY

    def __init__(self, format: Format = FP32) -> None:
        self.format = format
        super().__init__(
            {"i_valid": In(1), "a": In(format.width), "b": In(format.width), "o_valid": Out(1), "o": Out(format.width)}
        )

    @property
    def module_name(self) -> str:
        return f"fp_mul_{self.format.suffix}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = 2 * self.format.significand_bits
        a, b = unpack(m, self.a, self.format, "a"), unpack(m, self.b, self.format, "b")
        # One subnormal operand's zeros; two ones make a product far below half the smallest number.
        m.submodules.round = round_ = Fp32Round(
            width,
            max_left=self.format.significand_bits,
            right=True,
            exponent_width=self.format.exponent_bits + 2,
            format=self.format,
        )

        # Stage 0: the product; its uppermost bit is worth 2.
        product = Signal(width, reset_less=True)
        exponent = Signal(signed(self.format.exponent_bits + 2), reset_less=True)
        sign = Signal(reset_less=True)
        infinity = Signal(reset_less=True)
        nan = Signal(reset_less=True)
        valid = Signal(self.LATENCY)
        m.d.sync += [
            product.eq(a.significand * b.significand),
            exponent.eq(a.exponent + b.exponent + (1 - self.format.bias)),
            sign.eq(a.sign ^ b.sign),
            infinity.eq(a.infinity | b.infinity),
            nan.eq(a.nan | b.nan | (a.infinity & b.zero) | (a.zero & b.infinity)),
            valid.eq(Cat(self.i_valid, valid)),
        ]
        m.d.comb += [
            round_.i.eq(product),
            round_.exponent.eq(exponent),
            round_.sign.eq(sign),
            round_.infinity.eq(infinity),
            round_.nan.eq(nan),
            self.o.eq(round_.o),
            self.o_valid.eq(valid[-1]),
        ]
        return m
