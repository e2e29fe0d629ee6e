"""Normalization and rounding: what every floating-point result passes on its way out."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .fp32 import FP32, Format
from .leading_zeros import leading_zeros

__all__ = ["Fp32Round"]


class Fp32Round(wiring.Component):
    """The IEEE 754 binary32 number nearest to ± ``i`` · 2^(``exponent`` − 127 − (``width`` − 1)), ties to even.

    ``exponent`` is the biased exponent that the result has if the uppermost bit of ``i`` is its leading one. Subnormal results,
    underflow to zero and overflow to infinity follow the standard; zero keeps its sign unless ``positive_zero``. The lowest bit of
    ``i`` may stand for any number of bits below it.

    The leading one is brought to the top by a left shift, but by ``exponent`` − 1 places at most, which leaves a subnormal result
    where it belongs; where that is negative, it is a right shift. Both are one shifter: a coarse step of 32 places to the right, to
    the left or not at all, then 0 to 31 places to the left.

    Latency: `LATENCY` = 2 cycles; the first stage counts zeros, the second shifts and rounds. Throughput: one value a cycle. There is no
    valid bit: whoever has one carries it beside.

    Parameters
    ----------
    width : int
        Bits of ``i``: one more than a significand at least, ValueError otherwise.
    max_left : int
        The farthest left shift, 1 to ``width`` − 1 and, with ``right``, at most 63 in binary32; ValueError otherwise. Legal inputs have
        their leading one within ``max_left`` places below the top, or are 0, or round to a subnormal number.
    right : bool
        Whether ``exponent`` can be less than 1.
    exponent_width : int
        Bits of the signed ``exponent``; ``exponent`` − 1 − ``max_left`` must fit as well.
    format : Format
        Of the result.

    Members
    -------
    i : In(width)
        The magnitude, unsigned.
    sign : In(1)
        The result is negative.
    exponent : In(signed(exponent_width))
    infinity, nan : In(1)
        The result is ± infinity, or the quiet NaN, whatever ``i`` is. A NaN goes before infinity.
    positive_zero : In(1)
        If ``i`` is 0, the result is +0.
    o : Out(format.width)
        The number, `LATENCY` cycles after all of these.
    """

    LATENCY = 2

    def __init__(self, width: int, *, max_left: int, right: bool, exponent_width: int, format: Format = FP32) -> None:
        self.width, self.max_left, self.right, self.format = width, max_left, right, format
        # The significand and the bit that decides on rounding. A coarse step to the right leaves nothing in them.
        self._window = format.significand_bits + 1
        self._fine_bits = (self._window - 1).bit_length() if right else max_left.bit_length()
        if width < self._window:
            raise ValueError(f"width must be at least {self._window}, not {width}")
        if not 0 < max_left < min(width, 2 * 2**self._fine_bits):
            raise ValueError(f"max_left must be 1 to {min(width, 2 * 2**self._fine_bits) - 1}, not {max_left}")
        super().__init__(
            {
                "i": In(width),
                "sign": In(1),
                "exponent": In(signed(exponent_width)),
                "infinity": In(1),
                "nan": In(1),
                "positive_zero": In(1),
                "o": Out(format.width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        exponent_bits, fraction_bits = self.format.exponent_bits, self.format.fraction_bits

        # Stage 0: how far to shift, and the exponent that goes with it.
        zeros = Signal(range(self.max_left + 1))
        # What is left of the exponent, less one, after normalization: negative if the result is not normal.
        limit = Signal.like(self.exponent, name="limit")
        rest = Signal.like(self.exponent, name="rest")
        subnormal = Signal()
        chosen = Signal.like(self.exponent, name="chosen")
        shift = Signal(self._fine_bits)
        right = Signal()
        left = Signal()
        m.d.comb += [
            zeros.eq(leading_zeros(self.i[-self.max_left :])),
            limit.eq(self.exponent - 1),
            rest.eq(limit - zeros),
            subnormal.eq(rest < 0),
            chosen.eq(Mux(subnormal, limit, zeros)),
            shift.eq(chosen),
        ]
        if self.right:
            m.d.comb += [right.eq(limit < 0), left.eq(~right & chosen[self._fine_bits])]
            # Past the coarse step nothing is left to be shifted any further.
            with m.If(limit < -(2**self._fine_bits)):
                m.d.comb += shift.eq(0)
        stage1_i = Signal(self.width, reset_less=True)
        stage1_shift = Signal(self._fine_bits, reset_less=True)
        stage1_right = Signal(reset_less=True)
        stage1_left = Signal(reset_less=True)
        stage1_sign = Signal(reset_less=True)
        stage1_infinity = Signal(reset_less=True)
        stage1_nan = Signal(reset_less=True)
        # Only that of a normal number matters.
        stage1_rest = Signal(len(rest) - 1, reset_less=True)
        m.d.sync += [
            stage1_i.eq(self.i),
            stage1_shift.eq(shift),
            stage1_right.eq(right),
            stage1_left.eq(left),
            stage1_infinity.eq(self.infinity),
            stage1_nan.eq(self.nan),
            stage1_rest.eq(rest),
            stage1_sign.eq(self.sign & ~self.nan & ~(self.positive_zero & ~self.i.any())),
        ]

        # Stage 1: shift, round, and replace what is no number of the format.
        window, lost = self._shift(m, stage1_i, stage1_shift, stage1_right, stage1_left)
        guard, significand = window[0], window[1:]
        normal = Signal()
        up = Signal()
        special = Signal()
        # The leading one of a normal number counts the exponent up by the one it is short of; so does a carry out of the fraction,
        # into infinity at last.
        magnitude = Signal(self.format.width - 1)
        rounded = Signal(self.format.width - 1)
        m.d.comb += [
            normal.eq(significand[-1]),
            up.eq(guard & (lost | significand[0])),
            magnitude.eq(Cat(significand[:-1], Mux(normal, stage1_rest[:exponent_bits], 0))),
            rounded.eq(magnitude + Cat(up, Const(0, fraction_bits - 1), normal)),
            special.eq(stage1_nan | stage1_infinity | normal & (stage1_rest >= 2**exponent_bits - 2)),
        ]
        o = Signal(self.format.width, reset_less=True)
        quiet = Cat(Const(0, fraction_bits - 1), stage1_nan)
        m.d.sync += o.eq(
            Cat(
                Mux(special, quiet, rounded[:fraction_bits]),
                rounded[fraction_bits:] | special.replicate(exponent_bits),
                stage1_sign,
            )
        )
        m.d.comb += self.o.eq(o)
        return m

    def _shift(self, m: Module, i: Signal, shift: Signal, right: Signal, left: Signal) -> tuple[Value, Value]:
        """The significand and the bit below it, and whether any bit below that is set.

        After each step only the bits that the remaining steps can still bring into the window are kept.
        """
        coarse = 2**self._fine_bits
        kept = self._window + coarse - 1
        value, lost = _top(i, kept)
        if self.right:
            far, far_lost = _top(Cat(i, Const(0, coarse)), kept)
            value, lost = Mux(right, far, value), Mux(right, far_lost, lost)
            if self.max_left >= coarse:
                near, near_lost = _top(i[: self.width - coarse], kept)
                value, lost = Mux(left, near, value), Mux(left, near_lost, lost)
        below = [lost]
        for place in reversed(range(self._fine_bits)):
            step = 2**place
            shifted = Signal(len(value), name=f"shifted{step}")
            m.d.comb += shifted.eq(Mux(shift[place], value << step, value))
            value, lost = _top(shifted, self._window + step - 1)
            below.append(lost)
        return value, Cat(below).any()


def _top(value: Value, bits: int) -> tuple[Value, Value]:
    """The uppermost `bits` of `value`, filled up with zeros below, and whether a bit left out is set."""
    if len(value) <= bits:
        return Cat(Const(0, bits - len(value)), value), Const(0, 1)
    return value[-bits:], value[:-bits].any()
