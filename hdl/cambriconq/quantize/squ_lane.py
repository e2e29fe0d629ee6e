"""One lane of the quantization unit: a binary32 number to an integer, and by how much it is off."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .squ_setup import WINDOW_BITS, SquRounding, SquScale

__all__ = ["SquLane"]


@emit_once
class SquLane(wiring.Component):
    """Cuts x to the window, rounds it to a step half away from zero, clips, and tells the error (Section IV-B1, Quant. Unit).

    In units of the window's last place, with the step 2^h and the magnitude x̃ of the cut number:

        q = min(⌊(x̃ + 2^(h−1)) / 2^h⌋, clip)        error = x̃ − q·2^h, with the sign of x if ``signed_error``, else its magnitude

    An error has 24 bits and a sign: it is at most half a step where q ≠ 0 is not clipped, and at most x̃ elsewhere. A NaN is 0 with
    error 0, an infinity ± clip with error 0. What lies above the window (only if θ is bypassed) counts as the largest number in it.

    No subtraction is needed for the error of a rounded number: it is the part of x̃ below 2^h, and with ones instead of zeros
    above that part if it was rounded up. Whether to clip is read from x̃ − clip·2^h, the error of a clipped number.

    Latency: `LATENCY` = 4 cycles. The constants come with each stage: ``window`` with ``i``, ``scale`` two cycles later,
    ``rounding`` three. Throughput: one value a cycle.

    Parameters
    ----------
    window_bits : int
        Bits of a significand, 24; less only to make proofs small. ``i`` has a fraction of one bit less, and of the constants only as
        many bits count.

    Members
    -------
    i : In(window_bits + 8)
        In binary32.
    window : In(9)
        Biased exponent of a number that fills the window.
    scale : In(SquScale)
    rounding : In(SquRounding)
    q : Out(signed(16))
        With the sign of x.
    error : Out(signed(window_bits + 1))
    """

    LATENCY = 4

    def __init__(self, window_bits: int = WINDOW_BITS) -> None:
        if not 2 <= window_bits <= WINDOW_BITS:
            raise ValueError(f"window_bits must be 2 to {WINDOW_BITS}, not {window_bits}")
        self.window_bits = window_bits
        super().__init__(
            {
                "i": In(window_bits + 8),
                "window": In(9),
                "scale": In(SquScale),
                "rounding": In(SquRounding),
                "q": Out(signed(16)),
                "error": Out(signed(window_bits + 1)),
            }
        )

    @property
    def module_name(self) -> str:
        return f"squ_lane_{self.window_bits}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self.window_bits

        def register(shape: int, name: str) -> Signal:
            return Signal(shape, name=name, reset_less=True)

        # Stage 0: where the number lies in the window.
        fraction, field = self.i[: bits - 1], self.i[bits - 1 : -1]
        special = Signal()
        infinite = Signal()
        distance = Signal(signed(10))
        m.d.comb += [
            special.eq(field.all()),
            infinite.eq(special & ~fraction.any()),
            distance.eq(self.window - (field | ~field.any())),
        ]
        above, vanishes = distance < 0, special | (distance >= bits)
        stage1_significand, stage1_distance = register(bits, "stage1_significand"), register(5, "stage1_distance")
        signs = [register(1, f"stage{stage}_sign") for stage in (1, 2, 3)]
        infinities = [register(1, f"stage{stage}_infinite") for stage in (1, 2, 3)]
        m.d.sync += [
            stage1_significand.eq((Cat(fraction, field.any()) | above.replicate(bits)) & ~vanishes.replicate(bits)),
            stage1_distance.eq(Mux(above, 0, distance)),
            *(stage.eq(value) for stage, value in zip(signs, (self.i[-1], *signs[:-1]), strict=True)),
            *(stage.eq(value) for stage, value in zip(infinities, (infinite, *infinities[:-1]), strict=True)),
        ]

        # Stage 1: cut.
        stage2_x = register(bits, "stage2_x")
        m.d.sync += stage2_x.eq(stage1_significand >> stage1_distance)

        # Stage 2: divide by half a step; in parallel, take off the largest number that is not clipped.
        stage3_x, stage3_halves = register(bits, "stage3_x"), register(16, "stage3_halves")
        stage3_excess = register(bits + 1, "stage3_excess")
        m.d.sync += [
            stage3_x.eq(stage2_x),
            stage3_halves.eq(self._quotient(m, stage2_x, self.scale.shift)),
            stage3_excess.eq(stage2_x - self.scale.clip_level[:bits]),
        ]

        # Stage 3: round, clip, and give both results their signs. −(a + up) = ~a + ~up, so one adder rounds and negates.
        sign, infinite = signs[-1], infinities[-1]
        rounding, excess = self.rounding, stage3_excess[:bits]
        clips = Signal()
        up = Signal()
        negate = Signal()
        below_step = Signal(bits)
        magnitude = Signal(15)
        difference = Signal(bits + 1)
        rounded = Mux(up, Cat(stage3_x | ~below_step, Const(1, 1)), stage3_x & below_step)
        m.d.comb += [
            clips.eq(infinite | rounding.can_clip & ~stage3_excess[-1] & (excess & ~rounding.below_half[:bits]).any()),
            below_step.eq(Cat(Const(1, 1), rounding.below_half)),
            up.eq(stage3_halves[0] & ~clips),
            magnitude.eq(Mux(clips, rounding.clip, stage3_halves[1:])),
            difference.eq(Mux(infinite, 0, Mux(clips, excess, rounded))),
            negate.eq(Mux(rounding.signed_error, sign, difference[-1])),
        ]
        q, error = register(16, "q_register"), register(bits + 1, "error_register")
        m.d.sync += [
            q.eq((Cat(magnitude, Const(0, 1)) ^ sign.replicate(16)) + (up ^ sign)),
            error.eq((difference ^ negate.replicate(bits + 1)) + negate),
        ]
        m.d.comb += [self.q.eq(q), self.error.eq(error)]
        return m

    @staticmethod
    def _quotient(m: Module, value: Value, shift: Value) -> Value:
        """The lower 16 bits of `value` >> `shift`; what has no place there belongs to a number that is clipped."""
        for place in reversed(range(len(shift))):
            step = 2**place
            shifted = Signal(min(len(value), 16 + step - 1), name=f"shifted{step}")
            m.d.comb += shifted.eq(Mux(shift[place], value[step:] if step < len(value) else 0, value))
            value = shifted
        return value
