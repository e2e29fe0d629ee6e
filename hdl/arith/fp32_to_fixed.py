"""IEEE 754 binary32 to the integers of a quantized tensor."""

from amaranth import Array, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .fp32 import FP32, unpack

__all__ = ["Fp32ToFixed"]

_MOST_BITS = 16


@emit_once
class Fp32ToFixed(wiring.Component):
    """``o`` = ``i`` · 2^−``exponent``, rounded half away from zero and clipped to ± Qmax, Qmax = 2^(bits − 1) − 1.

    The quantizer of Cambricon-Q: ``o`` · 2^``exponent`` stands for ``i``. Rounding is on magnitudes, so the result is symmetric. A NaN
    gives 0 and an infinity ± Qmax; both raise ``special``. Legal are all values of all inputs.

    Latency: `LATENCY` = 1 cycle. Throughput: one number a cycle; nothing ever waits. Without ``o_valid`` results mean nothing.

    Members
    -------
    i_valid : In(1)
        There is a number.
    i : In(32)
        In binary32.
    exponent : In(signed(8))
    nibbles : In(2)
        Less one: 0 to 3 for 4, 8, 12 or 16 bits.
    o_valid : Out(1)
        ``i_valid``, `LATENCY` cycles later.
    o : Out(signed(16))
        Sign-extended where ``nibbles`` asks for less.
    special : Out(1)
        ``i`` was NaN or infinite.
    """

    LATENCY = 1

    def __init__(self) -> None:
        super().__init__(
            {
                "i_valid": In(1),
                "i": In(FP32.width),
                "exponent": In(signed(8)),
                "nibbles": In(2),
                "o_valid": Out(1),
                "o": Out(signed(_MOST_BITS)),
                "special": Out(1),
            }
        )

    @property
    def module_name(self) -> str:
        return "fp32_to_fixed"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The 15 bits that a result can have and the one below, shifted right. A normal number to be shifted less is beyond every
        # limit, and no tag's exponent is so low that a subnormal one would be shifted less.
        i = unpack(m, self.i, FP32, "i")
        distance = Signal(signed(FP32.exponent_bits + 2))
        shifted = Signal(_MOST_BITS)
        large = Signal()
        m.d.comb += [
            distance.eq(self.exponent - i.exponent + (FP32.bias + _MOST_BITS - 2)),
            shifted.eq(Mux(distance[4:].any(), 0, i.significand[-_MOST_BITS:] >> distance[:4])),
            large.eq((distance < 0) | i.infinity),
        ]

        rounded = Signal(_MOST_BITS)
        limit = Signal(_MOST_BITS)
        clipped = Signal(_MOST_BITS)
        m.d.comb += [
            rounded.eq(shifted[1:] + shifted[0]),
            limit.eq(Array(Const(2 ** (4 * n + 3) - 1, _MOST_BITS) for n in range(4))[self.nibbles]),
            clipped.eq(Mux(i.nan, 0, Mux(large | (rounded & ~limit).any(), limit, rounded))),
        ]
        o = Signal(signed(_MOST_BITS), reset_less=True)
        special = Signal(reset_less=True)
        valid = Signal()
        m.d.sync += [o.eq(Mux(i.sign, -clipped, clipped)), special.eq(i.nan | i.infinity), valid.eq(self.i_valid)]
        m.d.comb += [self.o.eq(o), self.special.eq(special), self.o_valid.eq(valid)]
        return m
