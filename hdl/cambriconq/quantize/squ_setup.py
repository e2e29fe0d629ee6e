"""What the quantization lanes need to know of a candidate, and the settings that it comes from."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.tag import Tag

__all__ = ["ERROR_METRICS", "WINDOW_BITS", "SquCandidate", "SquRounding", "SquScale", "SquSettings", "SquSetup"]

ERROR_METRICS = ("sum of |x − x'|", "|sum of x − x'|", "largest |x − x'|")
"""Their places are the values of `SquSettings.metric`."""

WINDOW_BITS = 24
"""A lane's integers have as many bits as the significand of a binary32 number."""


class SquCandidate(data.Struct):
    """One way to quantize a block."""

    size: 2  # bits / 4 − 1
    offset: signed(4)  # added to the exponent
    clip: 15  # largest |q|, at most Qmax


class SquSettings(data.Struct):
    """How a block is quantized."""

    candidates: data.ArrayLayout(SquCandidate, 4)
    count: 2  # candidates tried, less one
    metric: 2  # place in ERROR_METRICS
    bypass: 1  # every candidate starts from `exponent` instead of from θ
    exponent: signed(8)


class SquScale(data.Struct):
    """Constants of a lane's stage 2. The step is 2^h units, a unit being the last place of the window."""

    shift: 5  # h − 1
    clip_level: WINDOW_BITS  # clip · 2^h


class SquRounding(data.Struct):
    """Constants of a lane's stage 3."""

    below_half: WINDOW_BITS  # 2^(h−1) − 1, as far as the window reaches
    clip: 15
    can_clip: 1  # clip · 2^h lies within the window
    signed_error: 1


class SquSetup(wiring.Component):
    """Derives exponent, shift and clip of a candidate from θ, a stage ahead of the lanes.

    The window has 24 bits, whose last place is that of θ: E of docs/cambriconq.md is ``window`` − 126 and a unit is
    2^(``window`` − 150). Where θ is subnormal or 0 the window stays at that of the smallest normal number, which holds every
    subnormal number whole: nothing is cut, and only the unit in which errors are compared is another.

    Every θ, settings and candidate are legal. What is out of range is brought into it and reported: a clip above Qmax counts
    as Qmax, metric 3 as 0, an exponent outside −128..127 as the nearest bound.

    Latency: ``window`` belongs to the inputs of one cycle before, ``settings_illegal`` and ``exponent_clamped`` to those of two, ``scale`` of
    three, ``rounding`` and ``tag`` of four. Throughput: a candidate a cycle.

    Members
    -------
    theta : In(31)
        Bit pattern of θ, of which the sign is left out.
    candidate : In(SquCandidate)
    metric : In(2)
    bypass : In(1)
    exponent : In(signed(8))
        Of `SquSettings`, these three.
    window : Out(9)
        Biased exponent of a number that fills the window: 1..254, 13..268 if θ is bypassed.
    scale : Out(SquScale)
    rounding : Out(SquRounding)
    tag : Out(Tag)
    settings_illegal, exponent_clamped : Out(1)
        The candidate's clip exceeds Qmax or there is no such metric; the exponent left −128..127.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "theta": In(31),
                "candidate": In(SquCandidate),
                "metric": In(2),
                "bypass": In(1),
                "exponent": In(signed(8)),
                "window": Out(9),
                "scale": Out(SquScale),
                "rounding": Out(SquRounding),
                "tag": Out(Tag),
                "settings_illegal": Out(1),
                "exponent_clamped": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        candidate = Signal(SquCandidate, reset_less=True)
        theta = Signal(31, reset_less=True)
        bypass = Signal(reset_less=True)
        exponent = Signal(signed(8), reset_less=True)
        metric = Signal(2, reset_less=True)
        m.d.sync += [
            candidate.eq(self.candidate),
            theta.eq(self.theta),
            bypass.eq(self.bypass),
            exponent.eq(self.exponent),
            metric.eq(self.metric),
        ]

        # Stage 1: the exponent. θ exceeds Qmax · 2^e for the lesser e if its upper bits − 1 are ones and any other is.
        field = theta[23:]
        significand = Cat(theta[:23], field.any())
        exceeds = Array(significand[25 - bits :].all() & significand[: 25 - bits].any() for bits in (4, 8, 12, 16))
        largest = Array(Const(2 ** (bits - 1) - 1, 15) for bits in (4, 8, 12, 16))
        least = Signal(signed(10))
        base = Signal(signed(8))
        moved = Signal(signed(9))
        clamped = Signal(signed(8))
        q_max = Signal(15)
        clip_exceeds = Signal()
        zero = Signal()
        outside = Signal()
        m.d.comb += [
            self.window.eq(Mux(bypass, exponent + 141, field | ~field.any())),
            least.eq(field - 129 - (candidate.size << 2) + exceeds[candidate.size]),
            base.eq(Mux(bypass, exponent, Mux(least < -128, -128, least))),
            moved.eq(base + candidate.offset),
            zero.eq(~bypass & ~theta.any()),
            outside.eq(~zero & (moved[-1] != moved[-2])),
            clamped.eq(Mux(zero, -128, Mux(outside, Mux(moved[-1], -128, 127), moved))),
            q_max.eq(largest[candidate.size]),
            clip_exceeds.eq(candidate.clip > q_max),
        ]
        stage2_tag = Signal(Tag, reset_less=True)
        stage2_window = Signal(5, reset_less=True)
        stage2_clip = Signal(15, reset_less=True)
        stage2_signed = Signal(reset_less=True)
        m.d.sync += [
            stage2_tag.e.eq(clamped),
            stage2_tag.size.eq(candidate.size),
            stage2_window.eq(self.window),
            stage2_clip.eq(Mux(clip_exceeds, q_max, candidate.clip)),
            stage2_signed.eq(metric == 1),
            self.settings_illegal.eq(clip_exceeds | (metric == 3)),
            self.exponent_clamped.eq(outside),
        ]

        # Stage 2: what follows from the step. 0 ≤ h − 1 ≤ 28, so five bits of the difference are enough.
        shift = Signal(5)
        level = Signal(15 + 29)
        m.d.comb += [shift.eq(stage2_tag.e + 149 - stage2_window), level.eq(stage2_clip << 1 << shift)]
        stage3_tag = Signal(Tag, reset_less=True)
        stage3_rounding = Signal(SquRounding, reset_less=True)
        scale = Signal(SquScale, reset_less=True)
        rounding = Signal(SquRounding, reset_less=True)
        tag = Signal(Tag, reset_less=True)
        m.d.sync += [
            scale.shift.eq(shift),
            scale.clip_level.eq(level),
            stage3_tag.eq(stage2_tag),
            stage3_rounding.clip.eq(stage2_clip),
            stage3_rounding.can_clip.eq(~level[WINDOW_BITS:].any()),
            stage3_rounding.signed_error.eq(stage2_signed),
            stage3_rounding.below_half.eq(Cat(shift > place for place in range(WINDOW_BITS))),
            rounding.eq(stage3_rounding),
            tag.eq(stage3_tag),
        ]
        m.d.comb += [self.scale.eq(scale), self.rounding.eq(rounding), self.tag.eq(tag)]
        return m
