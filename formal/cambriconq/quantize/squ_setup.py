"""A candidate's exponent is the least that holds θ, moved by the offset and kept in range."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.quantize.squ_setup import SquCandidate, SquSetup

__all__ = ["PROOFS"]

_LATENCY = 4


class SquSetupSpec(wiring.Component):
    """Any θ, any candidate, held. With `fault`, the offset is one bit narrower than it should be.

    In units of 2^(window − 150), the last place of θ, Qmax · 2^e is Qmax << h with h = e + 150 − window.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        shapes = {"theta": 31, "candidate": SquCandidate, "metric": 2, "bypass": 1, "exponent": signed(8), "least": signed(8)}
        self.inputs = {name: AnyConst(shape) for name, shape in shapes.items()}
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.setup = setup = SquSetup()
        theta, any_candidate, metric, bypass, exponent, least = self.inputs.values()
        candidate = Signal(SquCandidate)
        m.d.comb += candidate.eq(any_candidate)
        m.d.comb += [getattr(setup, name).eq(value) for name, value in self.inputs.items() if name != "least"]
        if self.fault:
            m.d.comb += setup.candidate.offset.eq(candidate.offset[:3].as_signed())
        cycle = Signal(range(_LATENCY + 1))
        m.d.sync += cycle.eq(Mux(cycle == _LATENCY, cycle, cycle + 1))

        field, significand = theta[23:], Cat(theta[:23], theta[23:].any())
        window, q_max = Signal(9), Array(Const(2 ** (bits - 1) - 1, 15) for bits in (4, 8, 12, 16))[candidate.size]
        m.d.comb += [Assume(~field.all()), window.eq(Mux(bypass, exponent + 141, Mux(field == 0, 1, field)))]
        # The definition picks `least`: it holds θ, and the one below does not or is out of range.
        places = Signal(signed(11))
        m.d.comb += places.eq(least + 150 - window)

        def holds(places: Signal) -> Value:
            """θ ≤ Qmax << places; θ itself is below 2^24, and Qmax at least 7."""
            return (places >= 0) & ((places > 24) | ((q_max << places[:5]) >= significand))

        below = Signal(signed(11))
        m.d.comb += [below.eq(places - 1), Assume(bypass | holds(places) & ((least == -128) | ~holds(below)))]

        moved, e, zero = Signal(signed(10)), Signal(signed(10)), Signal()
        m.d.comb += [
            zero.eq(~bypass & (theta == 0)),
            moved.eq(Mux(bypass, exponent, least) + Mux(zero, 0, candidate.offset)),
            e.eq(Mux(moved < -128, -128, Mux(moved > 127, 127, moved))),
        ]
        h, clip, level = Signal(signed(12)), Signal(15), Signal(15 + 31)
        m.d.comb += [h.eq(e + 150 - window), clip.eq(Mux(candidate.clip > q_max, q_max, candidate.clip)), level.eq(clip << h[:5])]
        with m.If(cycle == _LATENCY):
            m.d.comb += [
                Assert(setup.window == window),
                Assert(setup.tag.e == e),
                Assert(setup.tag.size == candidate.size),
                Assert((h >= 1) & (h <= 29)),
                Assert(setup.scale.shift == h - 1),
                Assert(setup.scale.clip_level == level[:24]),
                Assert(setup.rounding.clip == clip),
                Assert(setup.rounding.can_clip == (level < 2**24)),
                Assert(setup.rounding.below_half == ((Const(1, 29) << (h - 1)[:5]) - 1)[:24]),
                Assert(setup.rounding.signed_error == (metric == 1)),
                Assert(setup.settings_illegal == ((candidate.clip > q_max) | (metric == 3))),
                Assert(setup.exponent_clamped == (moved != e)),
                Cover((e == 127) & ~bypass),
                Cover(h == 1),
                Cover(h == 29),
                Cover(zero & (candidate.offset == -8)),
                Cover((moved < -128) & ~setup.rounding.can_clip),
            ]
        return m


PROOFS = [
    Proof(
        name="cambriconq.quantize.squ_setup.exponent",
        spec=SquSetupSpec,
        fault=lambda: SquSetupSpec(fault=True),
        engine="bmc",
        depth=_LATENCY + 2,
        cover_depth=_LATENCY + 2,
        reason="a pipeline without feedback, so the cycles that fill it are everything; full width, every θ and candidate",
    )
]
