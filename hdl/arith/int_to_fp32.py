"""Integers times powers of two to IEEE 754 binary32."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .fp32 import FP32, Format
from .fp32_round import Fp32Round

__all__ = ["IntToFp32"]


@emit_once
class IntToFp32(wiring.Component):
    """``o`` = ``i`` · 2^``exponent``, rounded once, to nearest, ties to even; subnormal numbers, zero and infinity included.

    Legal are all values of both inputs. 0 gives +0.

    Latency: `LATENCY` = 2 cycles. Throughput: one number a cycle; nothing ever waits. Without ``o_valid`` a result means nothing.

    Parameters
    ----------
    width : int
        Bits of ``i``; 26 to 64 in binary32.
    exponent_width : int
        Bits of ``exponent``; 2 to 10 in binary32, of which 10 pass both ends of the format from any integer.
    format : Format
        Of the result; `FP32` but in proofs.

    Members
    -------
    i_valid : In(1)
        There is an integer.
    i : In(signed(width))
    exponent : In(signed(exponent_width))
    o_valid : Out(1)
        ``i_valid``, `LATENCY` cycles later.
    o : Out(format.width)
        The number, 32 bits of binary32; for one cycle.
    """

    LATENCY = Fp32Round.LATENCY

    def __init__(self, width: int, exponent_width: int = 10, format: Format = FP32) -> None:
        if not format.significand_bits + 2 <= width <= 64:
            raise ValueError(f"width must be {format.significand_bits + 2} to 64, not {width}")
        if not 2 <= exponent_width <= format.exponent_bits + 2:
            raise ValueError(f"exponent_width must be 2 to {format.exponent_bits + 2}, not {exponent_width}")
        self.width, self.exponent_width, self.format = width, exponent_width, format
        super().__init__(
            {
                "i_valid": In(1),
                "i": In(signed(width)),
                "exponent": In(signed(exponent_width)),
                "o_valid": Out(1),
                "o": Out(format.width),
            }
        )

    @property
    def module_name(self) -> str:
        return f"int{self.width}_to_fp_{self.format.suffix}_{self.exponent_width}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        exponent_width = self.format.exponent_bits + 3
        m.submodules.round = round_ = Fp32Round(
            self.width, max_left=self.width - 1, right=True, exponent_width=exponent_width, format=self.format
        )
        valid = Signal(self.LATENCY)
        m.d.sync += valid.eq(Cat(self.i_valid, valid))
        m.d.comb += [
            # As an unsigned number the magnitude of the least integer fits.
            round_.i.eq((self.i ^ self.i[-1].replicate(self.width)) + self.i[-1]),
            round_.sign.eq(self.i[-1]),
            round_.exponent.eq(self.exponent + (self.format.bias + self.width - 1)),
            self.o.eq(round_.o),
            self.o_valid.eq(valid[-1]),
        ]
        return m
