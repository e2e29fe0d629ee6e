"""The words of a shape come out of the beats that were asked for, each once and in order, and no beat is left over."""

from typing import Any

from amaranth import Cat, Const, Module, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.cambriconq.walk import Elements, any_job
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.memory_gather import MemoryGather

__all__ = ["PROOFS"]

_BITS, _MOST = 6, 2


class MemoryGatherSpec(wiring.Component):
    """Beats of two words, each word of memory its own address. One command is served at a time.

    That is no loss: what the block asks for and what it makes of the answers share nothing but the start.
    """

    def __init__(self, block: type[MemoryGather] = MemoryGather) -> None:
        self.block = block
        super().__init__({"start": In(1), "answer": In(1), "ready": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.gather = gather = self.block(8)
        shape, place = any_job(m, most=_MOST, at_bits=3, step_bits=2, unit=4)
        beat, left = Signal(_BITS - 3), Signal(3)
        asked, given, taken, waited, ended = Signal(), Signal(), Signal(), Signal(), Signal()
        elements = Elements(m, shape, place, self.start, taken, most=_MOST, bits=_BITS, name="expected")
        m.d.comb += [
            gather.shape.eq(shape), gather.place.eq(place), gather.start.eq(self.start), gather.o.ready.eq(self.ready),
            gather.command.ready.eq(left == 0), gather.data.valid.eq((left != 0) & self.answer),
            gather.data.payload.eq(Cat(*(Cat(Const(lane, 3), beat, Const(0, 32 - _BITS)) for lane in (0, 4)))),
            asked.eq(gather.command.valid & gather.command.ready), given.eq(gather.data.valid & gather.data.ready),
            taken.eq(gather.o.valid & self.ready),
        ]  # fmt: skip
        with m.If(asked):
            m.d.sync += [beat.eq(gather.command.payload.address >> 3), left.eq(gather.command.payload.beats)]
        with m.Elif(given):
            m.d.sync += [beat.eq(beat + 1), left.eq(left - 1)]
        # An answer on offer stays on offer.
        m.d.sync += [
            waited.eq(gather.data.valid & ~gather.data.ready),
            ended.eq((taken & elements.last) | (self.start & ((shape.rows == 0) | (shape.cols == 0)))),
        ]  # fmt: skip
        word = gather.o.payload
        m.d.comb += [
            Assume(~self.start | ~elements.running), Assume(~waited | self.answer), Assert(gather.done == ended),
            Assert(elements.running | ((left == 0) & ~gather.command.valid & ~gather.o.valid)),
            Assert(~gather.command.valid | (gather.command.payload.beats[3:] == 0)),
            Cover(taken & elements.last & (elements.row == 1) & (elements.col == 1) & (place.col == 4) & (place.at == 4)),
            Cover(taken & elements.last & (elements.row == 1) & (elements.col == 1) & (place.col == 8)),
        ]  # fmt: skip
        with m.If(gather.o.valid):
            m.d.comb += [
                Assert(word.word[:_BITS] == elements.address),
                Assert(word.last_of_row == elements.last_of_row), Assert(word.last == elements.last),
            ]  # fmt: skip
        return m


class HoardingGather(MemoryGather):
    """Keeps the beat at the end of a row, for the next row may begin in it."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.o.payload.last_of_row & ~self.o.payload.last & (self.data.payload[2] == 0)):
            m.d.comb += self.data.ready.eq(0)
        return m


PROOFS = [
    Proof(name="cambriconq.memory_gather.words", spec=MemoryGatherSpec, fault=lambda: MemoryGatherSpec(HoardingGather),
          engine="bmc", depth=12, cover_depth=16,
          reason="12 cycles are a whole shape of up to two rows and columns and a few stalls, at any alignment and distance"),
]  # fmt: skip
