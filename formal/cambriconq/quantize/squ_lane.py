"""A quantization lane equals the definition of docs/cambriconq.md, proved on short significands."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.quantize.squ_lane import SquLane

__all__ = ["PROOFS"]

_BITS = 8


class SquLaneSpec(wiring.Component):
    """Any number, window, step and clip, held: the constants are those that squ_setup is proved to give.

    q is rounded from the number as it is, the error is counted from the number that was cut to the window: so the proof
    shows as well that cutting changes no q. With `fault`, the lane believes it can always clip.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lane = lane = SquLane(_BITS)
        x, window, h, clip, signed_error = (AnyConst(width) for width in (_BITS + 8, 9, 5, 15, 1))
        filled = Signal(range(SquLane.LATENCY + 1))
        m.d.sync += filled.eq(Mux(filled == SquLane.LATENCY, filled, filled + 1))
        level = Signal(15 + 29)
        m.d.comb += [
            Assume((window >= 1) & (window <= 268) & (h >= 1) & (h <= 29)),
            level.eq(clip << h),
            lane.i.eq(x),
            lane.window.eq(window),
            lane.scale.shift.eq(h - 1),
            lane.scale.clip_level.eq(level),
            lane.rounding.below_half.eq((Const(1, 29) << (h - 1)[:5]) - 1),
            lane.rounding.clip.eq(clip),
            lane.rounding.can_clip.eq(1 if self.fault else level < 2**_BITS),
            lane.rounding.signed_error.eq(signed_error),
        ]

        sign, fraction, field = x[-1], x[: _BITS - 1], x[_BITS - 1 : -1]
        special, infinite, nan, above = Signal(), Signal(), Signal(), Signal()
        largest, significand, distance = 2**_BITS - 1, Signal(_BITS), Signal(signed(11))
        cut, places = Signal(_BITS), Signal(10)
        m.d.comb += [
            special.eq(field.all()),
            infinite.eq(special & ~fraction.any()),
            nan.eq(special & fraction.any()),
            distance.eq(window - Mux(field.any(), field, 1)),
            above.eq(distance < 0),
            significand.eq(Mux(nan, 0, Mux(above, largest, Cat(fraction, field.any())))),
            cut.eq(Mux(above, significand, Mux(distance >= _BITS, 0, significand >> distance[:4]))),
            # Where the number's last place lies below the step.
            places.eq(h + Mux(above, 0, distance)),
        ]
        rounded, magnitude, q = Signal(_BITS + 1), Signal(15), Signal(signed(17))
        half = Const(1, _BITS + 1) << (places - 1)[:4]
        difference, error = Signal(signed(46)), Signal(signed(46))
        m.d.comb += [
            rounded.eq(Mux(places > _BITS, 0, (significand + half) >> places[:4])),
            magnitude.eq(Mux(infinite | (rounded > clip), clip, rounded)),
            q.eq(Mux(sign, -magnitude, magnitude)),
            difference.eq(Mux(special, 0, cut - (magnitude << h))),
            error.eq(Mux(Mux(signed_error, sign, difference < 0), -difference, difference)),
        ]
        with m.If(filled == SquLane.LATENCY):
            m.d.comb += [
                Assert(lane.q == q),
                Assert(lane.error == error),
                Cover((rounded > clip) & (clip > 20)),
                Cover((magnitude == 2) & (difference < 0) & sign & (field == 0)),
                Cover(above & (rounded == clip) & (clip > 1)),
                Cover(infinite & (clip == 7)),
                Cover((magnitude == 0) & (h == 29) & cut.all()),
            ]
        return m


PROOFS = [
    Proof(
        name="cambriconq.quantize.squ_lane.definition",
        spec=SquLaneSpec,
        fault=lambda: SquLaneSpec(fault=True),
        engine="bmc",
        depth=SquLane.LATENCY + 1,
        cover_depth=SquLane.LATENCY + 1,
        reason="a pipeline without feedback, so the cycles that fill it are everything; significands of 8 bits instead of 24, "
        "because shifts by sums against sums of shifts take solvers long; every exponent, step and clip",
    )
]
