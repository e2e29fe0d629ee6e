"""Every word is written once, at its place, and no byte beside the shape; the end is told when the writer is idle."""

from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.cambriconq.walk import Elements, any_job
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.memory_scatter import MemoryScatter

__all__ = ["PROOFS"]

_BITS, _MOST = 6, 2


class MemoryScatterSpec(wiring.Component):
    """Beats of two words; each word offered is the address where it belongs. One command is served at a time."""

    def __init__(self, block: type[MemoryScatter] = MemoryScatter) -> None:
        self.block = block
        super().__init__({"start": In(1), "offer": In(1), "accept": In(1), "idle": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.scatter = scatter = self.block(8)
        shape, place = any_job(m, most=_MOST, at_bits=3, step_bits=2, unit=4)
        beat, left, pending = Signal(_BITS - 3), Signal(3), Signal(2)
        asked, given, taken, waited, ended = Signal(), Signal(), Signal(), Signal(), Signal()
        elements = Elements(m, shape, place, self.start, taken, most=_MOST, bits=_BITS, name="expected")
        m.d.comb += [
            scatter.shape.eq(shape), scatter.place.eq(place), scatter.start.eq(self.start), scatter.writer_idle.eq(self.idle),
            scatter.i.valid.eq(self.offer), scatter.i.payload.eq(elements.address),
            scatter.command.ready.eq(left == 0), scatter.data.ready.eq((left != 0) & self.accept),
            asked.eq(scatter.command.valid & scatter.command.ready), given.eq(scatter.data.valid & scatter.data.ready),
            taken.eq(scatter.i.valid & scatter.i.ready), Assume(place.col == 4),
        ]  # fmt: skip
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
            Assume(~self.start | ~(elements.running | ended)), Assume(~waited | self.offer),
            Assert(scatter.done == answered), Assert(~given | taken), Assert(~ends | given), Assert(~taken | elements.running),
            Assert(elements.running | ((left == 0) & ~scatter.command.valid & ~scatter.data.valid & (pending == 0))),
            Cover(scatter.done & (elements.row == 2) & (shape.cols == 2) & (place.at == 4)),
        ]  # fmt: skip
        for lane in range(2):
            m.d.comb += [
                Assert(~given | (strobes[lane] == 0) | strobes[lane].all()),
                Assert(~given | (strobes[lane] == 0) | (words[lane] == (beat << 3) + 4 * lane)),
            ]
        m.d.comb += Assert(~given | (strobes[0].any() + strobes[1].any() == pending + 1))
        return m


class ForgetfulScatter(MemoryScatter):
    """Writes a word's whole beat."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.data.payload.strobe.eq(-1)
        return m


PROOFS = [
    Proof(name="cambriconq.memory_scatter.words", spec=MemoryScatterSpec, fault=lambda: MemoryScatterSpec(ForgetfulScatter),
          engine="bmc", depth=12, cover_depth=16,
          reason="12 cycles are a whole shape of up to two rows and columns and a few stalls, at any alignment and distance"),
]  # fmt: skip
