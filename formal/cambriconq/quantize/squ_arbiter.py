"""The arbiter keeps tag and results of the candidate with the least error, the first of equals."""

from amaranth import Array, Module, Mux, Signal, Value, signed
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.quantize.squ_arbiter import SquArbiter

__all__ = ["PROOFS"]

_LANES, _BEATS, _ERROR_BITS = 2, 2, 1
_FREE = 2  # bits of tags and results that are not 0


class SquArbiterSpec(wiring.Component):
    """Blocks of one or two beats, one to four candidates, idle cycles anywhere, against a sum that is made at once.

    With `fault`, the second lane's errors are not seen.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__(
            {
                "valid": In(1),
                "last_beat": In(1),
                "last_candidate": In(2),
                "metric": In(2),
                "tag": In(_FREE),
                "q": In(_FREE),
                "error": In((_ERROR_BITS + 1) * _LANES),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.arbiter = arbiter = SquArbiter(_LANES, _LANES * _BEATS, _ERROR_BITS)
        beat, candidate = Signal(), Signal(2)
        last_beat, last_candidate, metric = Signal(), Signal(2), Signal(2)
        starts, last, ends, held = Signal(), Signal(), Signal(), Signal(5)
        m.d.comb += [
            starts.eq((beat == 0) & (candidate == 0)),
            # What holds for a block is chosen with its first beat.
            last_beat.eq(Mux(starts, self.last_beat, held[0])),
            last_candidate.eq(Mux(starts, self.last_candidate, held[1:3])),
            metric.eq(Mux(starts, self.metric, held[3:5])),
            last.eq(beat == last_beat),
            ends.eq(self.valid & last & (candidate == last_candidate)),
        ]
        with m.If(self.valid):
            m.d.sync += [held[0].eq(last_beat), held[1:3].eq(last_candidate), held[3:5].eq(metric)]
            m.d.sync += beat.eq(~last)
            with m.If(last):
                m.d.sync += candidate.eq(Mux(ends, 0, candidate + 1))
        m.d.comb += [
            arbiter.i_valid.eq(self.valid),
            arbiter.i.first.eq(beat == 0),
            arbiter.i.last.eq(last),
            arbiter.i.first_candidate.eq(candidate == 0),
            arbiter.i.last_candidate.eq(candidate == last_candidate),
            arbiter.i.metric.eq(metric),
            arbiter.tag.eq(self.tag),
            arbiter.q.eq(self.q),
            arbiter.error.eq(self.error[: _ERROR_BITS + 1] if self.fault else self.error),
        ]

        width = signed(_ERROR_BITS + 5)
        errors = [self.error.word_select(lane, _ERROR_BITS + 1).as_signed() for lane in range(_LANES)]
        m.d.comb += [Assume((metric == 1) | (error >= 0)) for error in errors]
        before, joined, error, least = (Signal(width, name=name) for name in ("before", "joined", "error", "least"))
        m.d.comb += [
            joined.eq(
                Mux(
                    metric == 2,
                    _largest(_largest(errors[0], errors[1]), Mux(beat == 0, 0, before)),
                    Mux(beat == 0, 0, before) + errors[0] + errors[1],
                )
            ),
            error.eq(Mux(joined < 0, -joined, joined)),
        ]
        better, best_tag, tag = Signal(), Signal(_FREE), Signal(_FREE)
        first_q, best = Signal(_FREE), [Signal(len(self.q), name=f"best{i}") for i in range(_BEATS)]
        now, kept = [Mux(beat == 0, self.q, first_q), self.q], [Signal(len(self.q), name=f"kept{i}") for i in range(_BEATS)]
        m.d.comb += [
            better.eq((candidate == 0) | (error < least)),
            tag.eq(Mux(better, self.tag, best_tag)),
            *(kept[i].eq(Mux(better, now[i], best[i])) for i in range(_BEATS)),
        ]
        with m.If(self.valid):
            m.d.sync += before.eq(joined)
            with m.If(beat == 0):
                m.d.sync += first_q.eq(self.q)
            with m.If(last & better):
                m.d.sync += [least.eq(error), best_tag.eq(self.tag), *(best[i].eq(kept[i]) for i in range(_BEATS))]

        # The verdict comes `latency` cycles later; the last result is in its buffer a cycle after that.
        expected = [ends, tag, last_beat, *kept]
        for stage in range(arbiter.latency + 1):
            following = [Signal(len(value), name=f"expected{stage}_{i}") for i, value in enumerate(expected)]
            m.d.sync += [register.eq(value) for register, value in zip(following, expected, strict=True)]
            if stage == arbiter.latency:
                m.d.comb += Assert(arbiter.judged_valid == expected[0])
            expected = following
        judged = Signal(arbiter.judged.shape())
        m.d.sync += judged.eq(arbiter.judged)
        stored = [[Signal(_FREE, name=f"stored{buffer}_{beat}") for beat in range(_BEATS)] for buffer in range(2)]
        with m.If(arbiter.write_enable):
            m.d.sync += Array(Array(row) for row in stored)[arbiter.write_buffer][arbiter.write_beat].eq(arbiter.write_data)
        with m.If(expected[0]):
            result = [Array(row[i] for row in stored)[judged.buffer] for i in range(_BEATS)]
            m.d.comb += [
                Assert(judged.tag.as_value() == expected[1]),
                Assert(judged.last_beat == expected[2]),
                Assert(result[0] == expected[3]),
                Assert(~expected[2] | (result[1] == expected[4])),
            ]
        m.d.comb += [Cover(ends & (candidate == 3) & ~better), Cover(ends & (candidate == 2) & better & last_beat & (metric == 1))]
        return m


def _largest(a: Value, b: Value) -> Value:
    return Mux(a > b, a, b)


PROOFS = [
    Proof(
        name="cambriconq.quantize.squ_arbiter.least",
        spec=SquArbiterSpec,
        fault=lambda: SquArbiterSpec(fault=True),
        engine="bmc",
        depth=9,
        cover_depth=9,
        reason="from power-up, nine cycles of free errors, idle cycles and resets; "
        "errors of one bit and a sign, and two free bits of tags and results, which only move",
    )
]
