"""Says what an instruction must wait for: earlier ones at work that touch what it touches."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.program.job import PlaceRange, ranges_meet

__all__ = ["Scoreboard"]

_RANGES = 4
"""Of an instruction, at most."""


class Scoreboard(wiring.Component):
    """Keeps the ranges of the instruction at work in every lane, and compares with them those of the next.

    Two instructions conflict where ranges of one space overlap and one of the two is written to.

    Latency: ``waits`` counts a range the cycle after it was noted, and the end of a lane the cycle after ``ended``.
    Throughput: a range a cycle.

    Parameters
    ----------
    lanes : int

    Members
    -------
    fresh : In(1)
        Forget what has been noted.
    place_valid : In(1)
    place : In(PlaceRange)
        A range of the next instruction, to be noted; at most four.
    issue : In(lanes)
        What has been noted goes to work in this lane, which is free. At most one of ``fresh``, ``place_valid`` and ``issue`` is high in a
        cycle.
    ended : In(lanes)
        The lane has become free.
    waits : Out(lanes)
        The lanes that the next instruction must wait for.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "fresh": In(1),
                "place_valid": In(1),
                "place": In(PlaceRange),
                "issue": In(lanes),
                "ended": In(lanes),
                "waits": Out(lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = data.ArrayLayout(PlaceRange, _RANGES)
        noted = Signal(kept, reset_less=True)
        count = Signal(range(_RANGES + 1))
        with m.If(self.fresh):
            m.d.sync += count.eq(0)
        with m.If(self.place_valid):
            m.d.sync += count.eq(count + 1)
            for number in range(_RANGES):
                with m.If(count == number):
                    m.d.sync += noted[number].eq(self.place)

        for lane in range(self.lanes):
            at_work, used = Signal(kept, name=f"at_work{lane}", reset_less=True), Signal(range(_RANGES + 1), name=f"used{lane}")
            conflict = Signal(name=f"conflict{lane}")
            m.d.comb += conflict.eq(
                self.place_valid & Cat((number < used) & _conflict(at_work[number], self.place) for number in range(_RANGES)).any()
            )
            with m.If(self.issue[lane]):
                m.d.sync += [at_work.eq(noted), used.eq(count)]
            with m.Elif(self.ended[lane]):
                m.d.sync += used.eq(0)
            m.d.sync += self.waits[lane].eq(Mux(self.fresh | self.ended[lane], 0, self.waits[lane] | conflict))
        return m


def _conflict(a: PlaceRange, b: PlaceRange) -> Value:
    return ranges_meet(a, b) & (a.write | b.write)
