"""Every word is written once, at its place, and no byte beside the shape; the end is told when the writer is idle."""

from typing import Any

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.movers.memory_scatter import MemoryScatter

from .walk import Elements, any_job

__all__ = ["PROOFS"]

_BITS, _ROWS, _COLS = 6, 2, 3


class MemoryScatterSpec(wiring.Component):
    """Beats of two words; each word offered, one by one or a beat at a time, is the address where it belongs. One command is served at
    a time."""

    def __init__(self, wide: bool, block: type[MemoryScatter] = MemoryScatter) -> None:
        self.wide, self.block = wide, block
        super().__init__({"start": In(1), "offer": In(1), "accept": In(1), "idle": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.scatter = scatter = self.block(8)
        shape, place = any_job(m, most=_COLS, at_bits=3, step_bits=2, unit=4)
        beat, left, pending = Signal(_BITS - 3), Signal(3), Signal(2)
        asked, given, taken, waited, ended = Signal(), Signal(), Signal(), Signal(), Signal()
        elements = Elements(
            m, shape, place, self.start, taken, most=_COLS, bits=_BITS, name="expected", wide=Const(self.wide), words=scatter.words
        )
        offered = [(elements.address + 4 * number)[:_BITS] for number in range(scatter.words)]
        m.d.comb += [
            Assume(shape.rows <= _ROWS),
            scatter.wide.eq(self.wide),
            scatter.shape.eq(shape),
            scatter.place.eq(place),
            scatter.start.eq(self.start),
            scatter.writer_idle.eq(self.idle),
            scatter.i.valid.eq(self.offer),
            scatter.i.payload.mask.eq(elements.mask),
            # What is not there must not be written.
            *(
                scatter.i.payload.words.word_select(number, 32).eq(Mux(elements.mask[number], offered[number], ~offered[number]))
                for number in range(scatter.words)
            ),
            scatter.command.ready.eq(left == 0),
            scatter.data.ready.eq((left != 0) & self.accept),
            asked.eq(scatter.command.valid & scatter.command.ready),
            given.eq(scatter.data.valid & scatter.data.ready),
            taken.eq(scatter.i.valid & scatter.i.ready),
            Assume(place.col == 4),
        ]
        with m.If(asked):
            m.d.sync += [beat.eq(scatter.command.payload.address >> 3), left.eq(scatter.command.payload.beats)]
        with m.Elif(given):
            m.d.sync += [beat.eq(beat + 1), left.eq(left - 1)]

        # Words taken and not yet in a beat.
        words: list[Value] = [scatter.data.payload.data.word_select(lane, 32) for lane in range(2)]
        strobes: list[Value] = [scatter.data.payload.strobe.word_select(lane, 4) for lane in range(2)]
        m.d.sync += pending.eq(Mux(given, 0, pending + taken))
        ends, empty, answered = Signal(), Signal(), Signal()
        m.d.comb += [ends.eq(taken & elements.last), empty.eq((shape.rows == 0) | (shape.cols == 0))]
        with m.If(ends):
            m.d.sync += ended.eq(1)
        with m.Elif(self.idle):
            m.d.sync += ended.eq(0)
        m.d.sync += [answered.eq((ended & self.idle) | (self.start & empty)), waited.eq(self.offer & ~scatter.i.ready)]
        m.d.comb += [
            Assume(~self.start | ~(elements.running | ended)),
            Assume(~waited | self.offer),
            Assert(scatter.done == answered),
            Assert(~given | taken),
            Assert(~ends | given),
            Assert(~taken | elements.running),
            Assert(elements.running | ((left == 0) & ~scatter.command.valid & ~scatter.data.valid & (pending == 0))),
        ]
        if self.wide:
            # The last group has one word, and is not the first of its row.
            m.d.comb += [
                Assume(place.wide(shape, scatter.words, 4)),
                Assert(taken == given),
                Cover(scatter.done & (elements.row == 2) & (shape.cols == 3) & (place.at == 8)),
            ]
        else:
            m.d.comb += Cover(scatter.done & (elements.row == 2) & (shape.cols == 2) & (place.at == 4))
        for lane in range(2):
            m.d.comb += [
                Assert(~given | (strobes[lane] == 0) | strobes[lane].all()),
                Assert(~given | (strobes[lane] == 0) | (words[lane] == (beat << 3) + 4 * lane)),
            ]
        m.d.comb += Assert(~given | (strobes[0].any() + strobes[1].any() == pending + sum(elements.mask)))
        return m


class ForgetfulScatter(MemoryScatter):
    """Writes a word's whole beat."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.data.payload.strobe.eq(-1)
        return m


class ImpatientScatter(MemoryScatter):
    """Takes a group before its beat can go."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.wide & self.data.valid):
            m.d.comb += self.i.ready.eq(1)
        return m


_REASON = "12 cycles are a whole shape of up to two rows and three columns and a few stalls, at any alignment and distance"

PROOFS = [
    Proof(
        name="cambriconq.movers.memory_scatter.words",
        spec=lambda: MemoryScatterSpec(False),
        fault=lambda: MemoryScatterSpec(False, ForgetfulScatter),
        engine="bmc",
        depth=12,
        cover_depth=16,
        reason=_REASON,
    ),
    Proof(
        name="cambriconq.movers.memory_scatter.groups",
        spec=lambda: MemoryScatterSpec(True),
        fault=lambda: MemoryScatterSpec(True, ImpatientScatter),
        engine="bmc",
        depth=12,
        cover_depth=16,
        reason=_REASON + " from a beat's beginning",
    ),
]
