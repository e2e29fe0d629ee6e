"""Each vector's lines and then its tag are written, in order, each in its place and no byte beside it."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.bus.streams import command_layout
from nibblecore.hdl.cambriconq.movers.vector_storer import VectorStorer

from .vector_loader import Progress, any_vectors

__all__ = ["PROOFS"]

_COLS, _BEAT_BITS = 8, 2


class VectorStorerSpec(wiring.Component):
    """Beats of two tags; each line is its own number. Up to two commands are taken before their beats."""

    def __init__(self, block: type[VectorStorer] = VectorStorer) -> None:
        self.block = block
        super().__init__({"start": In(1), "offer": In(1), "accept": In(1), "idle": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.storer = storer = self.block(_COLS)
        vectors, slot = any_vectors(m)
        at, tags, first_tag = Signal(3), Signal(4), Signal(10)  # at in beats, tags in tags
        m.d.comb += [at.eq(AnyConst(3)), tags.eq(AnyConst(4)), first_tag.eq(AnyConst(10))]

        commands, count = [Signal(command_layout(), name=f"command{number}") for number in range(2)], Signal(2)
        asked, ends = Signal(), Signal()
        given, taken, waited, ended, answered, begun = (
            Signal(name=name) for name in ("given", "taken", "waited", "ended", "answered", "begun")
        )
        offered = Progress(m, vectors, slot, self.start, taken, "offered")
        line, beat, command = storer.i.payload, storer.data.payload, storer.command
        m.d.comb += [
            storer.slot.eq(slot),
            storer.at.eq(at << _BEAT_BITS),
            storer.tags.eq(tags << 1),
            storer.start.eq(self.start),
            storer.i.valid.eq(self.offer & offered.running),
            line.line.eq(offered.number),
            line.tag.eq(first_tag ^ offered.vector),
            line.last_of_vector.eq(offered.last_of_vector),
            line.last.eq(offered.last),
            storer.writer_idle.eq(self.idle),
            storer.data.ready.eq((count != 0) & self.accept),
            command.ready.eq(count != 2),
            asked.eq(command.valid & command.ready),
            taken.eq(storer.i.valid & storer.i.ready),
            given.eq(storer.data.valid & storer.data.ready),
        ]

        # Of the two commands the one that is carried out is the first.
        with m.If(ends):
            m.d.sync += commands[0].eq(commands[1])
        with m.If(asked):
            m.d.sync += commands[1].eq(command.payload)
            with m.If(count == ends):
                m.d.sync += commands[0].eq(command.payload)
        m.d.sync += count.eq(count + asked - ends)

        # Where the beats go, by their commands; and what they should be: `plane` of a vector, its tag after the last.
        place, vector, plane, number = Signal(3), Signal(2), Signal(2), Signal(3)
        is_tag, tag_place = Signal(), Signal(5)
        m.d.comb += [is_tag.eq(plane == slot), ends.eq(given & (place + 1 == commands[0].beats)), tag_place.eq(tags + vector)]
        with m.If(given):
            m.d.sync += [
                place.eq(Mux(ends, 0, place + 1)),
                plane.eq(Mux(is_tag, 0, plane + 1)),
                vector.eq(vector + is_tag),
                number.eq(number + ~is_tag),
            ]
        with m.If(self.start):
            m.d.sync += [place.eq(0), plane.eq(0), vector.eq(0), number.eq(0), begun.eq(0)]
        with m.Else():
            m.d.sync += begun.eq((begun | storer.i.valid) & ~storer.done)
        written = Signal(32)
        m.d.comb += written.eq(commands[0].address + (place << _BEAT_BITS))
        with m.If(given & is_tag & (vector + 1 == vectors)):
            m.d.sync += ended.eq(1)
        with m.Elif(self.idle):
            m.d.sync += ended.eq(0)
        m.d.sync += [answered.eq(ended & self.idle), waited.eq(storer.i.valid & ~storer.i.ready)]
        m.d.comb += [
            Assume(~self.start | ~(begun | storer.i.valid) | storer.done),
            Assume(~waited | self.offer),
            Assert(storer.done == answered),
            Assert(~given | is_tag | (taken & (number == offered.number))),
            Assert(~taken | given),
            Assert(~command.valid | begun | storer.i.valid),
            Assert(~storer.done | (count == 0)),
            Cover(storer.done & (number == 4) & tags[0]),
        ]
        with m.If(given & is_tag):
            m.d.comb += [
                Assert(written == tag_place[1:] << _BEAT_BITS),
                Assert(beat.strobe == Mux(tag_place[0], 0b1100, 0b0011)),
                Assert(beat.data.word_select(tag_place[0], 16) == first_tag ^ vector),
            ]
        with m.Elif(given):
            m.d.comb += [Assert(written == (at + number) << _BEAT_BITS), Assert(beat.strobe.all()), Assert(beat.data == number)]
        return m


class CoarseStorer(VectorStorer):
    """Writes a tag's whole beat."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.data.payload.strobe.eq(-1)
        return m


PROOFS = [
    Proof(
        name="cambriconq.movers.vector_storer.beats",
        spec=VectorStorerSpec,
        fault=lambda: VectorStorerSpec(CoarseStorer),
        engine="bmc",
        depth=11,
        cover_depth=20,
        reason="11 cycles are two vectors of up to two lines, or fewer and a few stalls, at any place",
    )
]
