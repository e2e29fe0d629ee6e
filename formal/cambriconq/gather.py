"""The gather delivers each word of its shape once, in order, however its reads are granted and its words taken."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.cambriconq.walk import Elements, any_job
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.gather import Gather

__all__ = ["PROOFS"]

_BITS, _MOST = 3, 2


class GatherSpec(wiring.Component):
    """A gather of two lanes; every word of NBout is its own address, and what was not read is the address's complement."""

    def __init__(self, block: type[Gather] = Gather) -> None:
        self.block = block
        super().__init__({"start": In(1), "granted": In(1), "ready": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.gather = gather = self.block(2, _BITS)
        shape, place = any_job(m, most=_MOST, at_bits=_BITS, step_bits=_BITS)
        taken, read, row, waited, ended = Signal(), Signal(), Signal(_BITS - 1), Signal(), Signal()
        elements = Elements(m, shape, place, self.start, taken, most=_MOST, bits=_BITS, name="expected")
        m.d.comb += [
            gather.shape.eq(shape), gather.place.eq(place), gather.start.eq(self.start),
            gather.read.ready.eq(self.granted), gather.o.ready.eq(self.ready), taken.eq(gather.o.valid & self.ready),
        ]  # fmt: skip
        for lane in range(2):
            address = Cat(Const(lane, 1), row)
            m.d.comb += gather.read_data.word_select(lane, 32).eq(Mux(read, address, ~address))
        m.d.sync += [
            read.eq(gather.read.valid & self.granted), row.eq(gather.read.payload), waited.eq(gather.o.valid & ~self.ready),
            ended.eq((taken & elements.last) | (self.start & ((shape.rows == 0) | (shape.cols == 0)))),
        ]  # fmt: skip
        # Not before `done`, which comes a cycle after the last word.
        m.d.comb += [
            Assume(~self.start | ~elements.running), Assert(gather.done == ended), Assert(~waited | gather.o.valid),
            Assert(~gather.o.valid | elements.running), Assert(~gather.read.valid | elements.running),
            Cover(taken & elements.last & (elements.row == 1) & (elements.col == 1)),
        ]  # fmt: skip
        with m.If(gather.o.valid):
            m.d.comb += [
                Assert(gather.o.payload.word[:_BITS] == elements.address),
                Assert(gather.o.payload.last_of_row == elements.last_of_row), Assert(gather.o.payload.last == elements.last),
            ]  # fmt: skip
        return m


class ImpatientGather(Gather):
    """Asks for another row while a word waits."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.o.valid & ~self.o.ready):
            m.d.comb += self.read.payload.eq(0)
        return m


PROOFS = [
    Proof(name="cambriconq.gather.words", spec=GatherSpec, fault=lambda: GatherSpec(ImpatientGather),
          engine="bmc", depth=12, reason="12 cycles fill the queue, stall it and empty it; words stand for their addresses"),
]  # fmt: skip
