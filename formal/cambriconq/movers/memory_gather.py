"""The words of a shape come out of the beats that were asked for, each once and in order, and no beat is left over."""

from typing import Any

from amaranth import Cat, Const, Module, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.movers.memory_gather import MemoryGather

from .walk import Elements, any_job

__all__ = ["PROOFS"]

_BITS, _ROWS, _COLS = 6, 2, 3


class MemoryGatherSpec(wiring.Component):
    """Beats of two words, each word of memory its own address; one by one or a beat at a time. One command is served at a time.

    That is no loss: what the block asks for and what it makes of the answers share nothing but the start.
    """

    def __init__(self, wide: bool, block: type[MemoryGather] = MemoryGather) -> None:
        self.wide, self.block = wide, block
        super().__init__({"start": In(1), "answer": In(1), "ready": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.gather = gather = self.block(8)
        shape, place = any_job(m, most=_COLS, at_bits=3, step_bits=2, unit=4)
        beat, left = Signal(_BITS - 3), Signal(3)
        asked, given, taken, waited, ended = Signal(), Signal(), Signal(), Signal(), Signal()
        elements = Elements(
            m, shape, place, self.start, taken, most=_COLS, bits=_BITS, name="expected", wide=Const(self.wide), words=gather.words
        )
        m.d.comb += [
            Assume(shape.rows <= _ROWS),
            gather.wide.eq(self.wide),
            gather.shape.eq(shape),
            gather.place.eq(place),
            gather.start.eq(self.start),
            gather.o.ready.eq(self.ready),
            gather.command.ready.eq(left == 0),
            gather.data.valid.eq((left != 0) & self.answer),
            gather.data.payload.eq(Cat(*(Cat(Const(lane, 3), beat, Const(0, 32 - _BITS)) for lane in (0, 4)))),
            asked.eq(gather.command.valid & gather.command.ready),
            given.eq(gather.data.valid & gather.data.ready),
            taken.eq(gather.o.valid & self.ready),
        ]
        with m.If(asked):
            m.d.sync += [beat.eq(gather.command.payload.address >> 3), left.eq(gather.command.payload.beats)]
        with m.Elif(given):
            m.d.sync += [beat.eq(beat + 1), left.eq(left - 1)]
        # An answer on offer stays on offer.
        m.d.sync += [
            waited.eq(gather.data.valid & ~gather.data.ready),
            ended.eq((taken & elements.last) | (self.start & ((shape.rows == 0) | (shape.cols == 0)))),
        ]
        out, last_col = gather.o.payload, Signal()
        m.d.comb += [
            Assume(~self.start | ~elements.running),
            Assume(~waited | self.answer),
            Assert(gather.done == ended),
            Assert(elements.running | ((left == 0) & ~gather.command.valid & ~gather.o.valid)),
            Assert(~gather.command.valid | (gather.command.payload.beats[3:] == 0)),
            last_col.eq(taken & elements.last & (elements.row == 1) & (elements.col == shape.cols - 1)),
        ]
        if self.wide:
            # A beat goes with its words. The last group has one word, and is not the first of its row.
            m.d.comb += [
                Assume(place.wide(shape, gather.words, 4)),
                Assert(taken == given),
                Cover(last_col & (shape.cols == 3) & (place.at == 8) & (place.row == 8)),
            ]
        else:
            m.d.comb += [
                Cover(last_col & (shape.cols == 2) & (place.col == 4) & (place.at == 4)),
                Cover(last_col & (shape.cols == 2) & (place.col == 8)),
            ]
        with m.If(gather.o.valid):
            m.d.comb += [
                Assert(out.mask == elements.mask),
                Assert(out.last_of_row == elements.last_of_row),
                Assert(out.last == elements.last),
            ]
            for number in range(gather.words):
                address = (elements.address + 4 * number)[:_BITS]
                m.d.comb += Assert(~elements.mask[number] | (out.words.word_select(number, 32)[:_BITS] == address))
        return m


class HoardingGather(MemoryGather):
    """Keeps the beat at the end of a row, for the next row may begin in it."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.o.payload.last_of_row & ~self.o.payload.last & (self.data.payload[2] == 0)):
            m.d.comb += self.data.ready.eq(0)
        return m


class SavingGather(MemoryGather):
    """Keeps a beat of which not all words were taken."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.wide & ~self.o.payload.mask.all()):
            m.d.comb += self.data.ready.eq(0)
        return m


_REASON = "12 cycles are a whole shape of up to two rows and three columns and a few stalls, at any alignment and distance"

PROOFS = [
    Proof(
        name="cambriconq.movers.memory_gather.words",
        spec=lambda: MemoryGatherSpec(False),
        fault=lambda: MemoryGatherSpec(False, HoardingGather),
        engine="bmc",
        depth=12,
        cover_depth=16,
        reason=_REASON,
    ),
    Proof(
        name="cambriconq.movers.memory_gather.groups",
        spec=lambda: MemoryGatherSpec(True),
        fault=lambda: MemoryGatherSpec(True, SavingGather),
        engine="bmc",
        depth=12,
        cover_depth=16,
        reason=_REASON + " from a beat's beginning",
    ),
]
