"""Lines come out of memory in order, each with its vector's tag, and none of them where a tag does not fit."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.movers.vector_loader import VectorLoader

__all__ = ["PROOFS", "Progress", "any_vectors"]

_COLS, _BEAT_BITS, _BEATS = 8, 2, 8


def any_vectors(m: Module) -> tuple[Signal, Signal]:
    """One or two vectors of one or two lines; constant."""
    vectors, slot = Signal(2, name="vectors"), Signal(2, name="slot")
    m.d.comb += [vectors.eq(AnyConst(1) + 1), slot.eq(AnyConst(1) + 1)]
    return vectors, slot


class Progress:
    """Counts lines as they move, and knows what the next one ends."""

    def __init__(self, m: Module, vectors: Value, slot: Value, start: Value, moves: Value, name: str) -> None:
        self.vector, self.plane, self.number = (
            Signal(range(size), name=f"{name}_{part}") for part, size in (("vector", 3), ("plane", 3), ("number", 5))
        )
        self.last_of_vector, self.last = Signal(name=f"{name}_last_of_vector"), Signal(name=f"{name}_last")
        self.running = Signal(name=f"{name}_running")
        m.d.comb += [
            self.last_of_vector.eq(self.plane + 1 == slot),
            self.last.eq(self.last_of_vector & (self.vector + 1 == vectors)),
        ]
        with m.If(moves):
            m.d.sync += [
                self.number.eq(self.number + 1),
                self.plane.eq(Mux(self.last_of_vector, 0, self.plane + 1)),
                self.vector.eq(self.vector + self.last_of_vector),
            ]
            with m.If(self.last):
                m.d.sync += self.running.eq(0)
        with m.If(start):
            m.d.sync += [self.number.eq(0), self.plane.eq(0), self.vector.eq(0), self.running.eq(1)]


class VectorLoaderSpec(wiring.Component):
    """Beats of two tags. Every word of memory is its own number, and one has anything else above its exponent.

    One command is served at a time. That is no loss: what the block asks for and what it makes of the answers share nothing but
    that the tags fit.
    """

    def __init__(self, block: type[VectorLoader] = VectorLoader) -> None:
        self.block = block
        super().__init__({"start": In(1), "answer": In(1), "ready": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.loader = loader = self.block(_COLS)
        vectors, slot = any_vectors(m)
        at, tags, odd, upper = Signal(3), Signal(4), Signal(4), Signal(8)  # at in beats, tags in tags
        m.d.comb += [at.eq(AnyConst(3)), tags.eq(AnyConst(4)), odd.eq(AnyConst(4)), upper.eq(AnyConst(8))]

        def word(number: Value) -> Value:
            return Cat(number[:4], Const(0, 4), Mux(number[:4] == odd, upper, 0))

        def contents(beat: Value) -> Value:
            return Cat(word(beat << 1), word((beat << 1) | 1))

        words, bad = [Signal(16, name=f"word{number}") for number in range(2)], Signal()
        m.d.comb += [signal.eq(word(tags + number)) for number, signal in enumerate(words)]
        m.d.comb += bad.eq((words[0] >= slot << 8) | ((vectors == 2) & (words[1] >= slot << 8)))

        beat, left = Signal(range(_BEATS)), Signal(3)
        asked, given, taken, waited, ended = Signal(), Signal(), Signal(), Signal(), Signal()
        expected = Progress(m, vectors, slot, self.start, taken, "expected")
        line, command = loader.o.payload, loader.command
        m.d.comb += [
            loader.vectors.eq(vectors),
            loader.slot.eq(slot),
            loader.at.eq(at << _BEAT_BITS),
            loader.tags.eq(tags << 1),
            loader.start.eq(self.start),
            loader.o.ready.eq(self.ready),
            command.ready.eq(left == 0),
            loader.data.valid.eq((left != 0) & self.answer),
            loader.data.payload.eq(contents(beat)),
            asked.eq(command.valid & command.ready),
            given.eq(loader.data.valid & loader.data.ready),
            taken.eq(loader.o.valid & self.ready),
        ]
        with m.If(asked):
            m.d.sync += [beat.eq(command.payload.address >> _BEAT_BITS), left.eq(command.payload.beats)]
        with m.Elif(given):
            m.d.sync += [beat.eq(beat + 1), left.eq(left - 1)]
        with m.If(loader.done & bad):
            m.d.sync += expected.running.eq(0)
        # An answer on offer stays on offer.
        m.d.sync += [waited.eq(loader.data.valid & ~loader.data.ready), ended.eq(taken & expected.last)]
        m.d.comb += [
            Assume(~self.start | ~expected.running),
            Assume(~waited | self.answer),
            Assert(Mux(bad, ~loader.done | (loader.bad_tag & expected.running), loader.done == ended)),
            Assert(~loader.done | ((loader.bad_tag == bad) & (left == 0) & ~command.valid)),
            Assert(expected.running | ((left == 0) & ~command.valid & ~loader.o.valid)),
            Assert(~command.valid | (command.payload.beats[2:] == 0)),
            Assert(~bad | ~loader.o.valid),
            Cover(loader.done & bad & (words[0] < slot << 8)),
            Cover(taken & expected.last & (expected.number == 3) & tags[0]),
        ]
        with m.If(loader.o.valid):
            m.d.comb += [
                Assert(line.line == contents((at + expected.number)[:3])),
                Assert(line.tag.as_value() == Mux(expected.vector == 0, words[0], words[1])[:10]),
                Assert(line.last_of_vector == expected.last_of_vector),
                Assert(line.last == expected.last),
            ]
        return m


class StickyLoader(VectorLoader):
    """Marks every vector as the last."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.o.payload.last.eq(self.o.payload.last_of_vector)
        return m


PROOFS = [
    Proof(
        name="cambriconq.movers.vector_loader.lines",
        spec=VectorLoaderSpec,
        fault=lambda: VectorLoaderSpec(StickyLoader),
        engine="bmc",
        depth=12,
        cover_depth=22,
        reason="12 cycles are the check and a vector of two lines or two of one with a stall or two, wherever their tags are",
    )
]
