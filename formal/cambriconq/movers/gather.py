"""The gather delivers each word of its shape once, in order, however its reads are granted and its words or groups taken."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.movers.gather import Gather

from .walk import Elements, any_job

__all__ = ["PROOFS"]

_BITS, _WORDS = 3, 2


class GatherSpec(wiring.Component):
    """Every word of NBout is its own address, and what was not read is the address's complement.

    All shapes of up to two rows and ``most`` columns, narrow at any place or `wide` at any that may be.
    """

    def __init__(self, block: type[Gather] = Gather, *, lanes: int, most: int, wide: bool) -> None:
        self.block, self.lanes, self.most, self.wide = block, lanes, most, wide
        super().__init__({"start": In(1), "granted": In(1), "ready": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.gather = gather = self.block(self.lanes, _BITS, _WORDS)
        shape, place = any_job(m, most=self.most, at_bits=_BITS, step_bits=_BITS)
        taken, read, row, waited, ended = Signal(), Signal(), Signal.like(gather.read.payload), Signal(), Signal()
        elements = Elements(
            m, shape, place, self.start, taken, most=self.most, bits=_BITS, name="expected", wide=Const(self.wide), words=_WORDS
        )
        if self.wide:
            m.d.comb += Assume(place.wide(shape, _WORDS, 1))
        m.d.comb += [
            gather.shape.eq(shape),
            gather.place.eq(place),
            gather.wide.eq(self.wide),
            gather.start.eq(self.start),
            gather.read.ready.eq(self.granted),
            gather.o.ready.eq(self.ready),
            taken.eq(gather.o.valid & self.ready),
        ]
        for lane in range(self.lanes):
            address = Cat(Const(lane, self.lanes.bit_length() - 1), row)
            m.d.comb += gather.read_data.word_select(lane, 32).eq(Mux(read, address, ~address))
        m.d.sync += [
            read.eq(gather.read.valid & self.granted),
            row.eq(gather.read.payload),
            waited.eq(gather.o.valid & ~self.ready),
            ended.eq((taken & elements.last) | (self.start & ((shape.rows == 0) | (shape.cols == 0)))),
        ]
        # Not before `done`, which comes a cycle after the last word.
        m.d.comb += [
            Assume(shape.rows <= 2),
            Assume(~self.start | ~elements.running),
            Assert(gather.done == ended),
            Assert(~waited | gather.o.valid),
            Assert(~gather.o.valid | elements.running),
            Assert(~gather.read.valid | elements.running),
            # Wide, it is a group that is not full and not the first of its row.
            Cover(taken & elements.last & (elements.row == 1) & (elements.col == self.most - 1) & (gather.o.payload.mask == 1)),
        ]
        with m.If(gather.o.valid):
            m.d.comb += [
                Assert(gather.o.payload.mask == elements.mask),
                Assert(gather.o.payload.last_of_row == elements.last_of_row),
                Assert(gather.o.payload.last == elements.last),
            ]
            for number in range(_WORDS):
                word = gather.o.payload.words.word_select(number, 32)
                m.d.comb += Assert(~elements.mask[number] | (word[:_BITS] == (elements.address + number)[:_BITS]))
        return m


class ImpatientGather(Gather):
    """Asks for another row while a word waits."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.o.valid & ~self.o.ready):
            m.d.comb += self.read.payload.eq(0)
        return m


class FirstGroupGather(Gather):
    """Takes every group from the beginning of its row of NBout."""

    def _chosen(self, row: Value, lane: Value) -> Value:
        return super()._chosen(row, Mux(self.wide, 0, lane))


_REASON = "12 cycles fill the queue, stall it and empty it; words stand for their addresses"

PROOFS = [
    Proof(
        name="cambriconq.movers.gather.words",
        spec=lambda: GatherSpec(lanes=2, most=2, wide=False),
        fault=lambda: GatherSpec(ImpatientGather, lanes=2, most=2, wide=False),
        engine="bmc",
        depth=12,
        reason=_REASON,
    ),
    Proof(
        name="cambriconq.movers.gather.groups",
        spec=lambda: GatherSpec(lanes=4, most=3, wide=True),
        fault=lambda: GatherSpec(FirstGroupGather, lanes=4, most=3, wide=True),
        engine="bmc",
        depth=12,
        reason=_REASON + "; two groups make a row of NBout, and a row of the shape at most",
    ),
]
