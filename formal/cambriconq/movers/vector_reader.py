"""The slots of a buffer are delivered line by line, each once and in order, and none where a slot holds no vector."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.movers.vector_reader import VectorReader

from .vector_loader import Progress, any_vectors

__all__ = ["PROOFS"]

_COLS, _LINES = 8, 8


class VectorReaderSpec(wiring.Component):
    """Any tags of two, written or not; each line is its own number, and what was not read is its complement."""

    def __init__(self, block: type[VectorReader] = VectorReader) -> None:
        self.block = block
        super().__init__({"start": In(1), "ready": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.reader = reader = self.block(_COLS, _LINES)
        vectors, slot = any_vectors(m)
        tags, written, at = Signal(_LINES), Signal(_LINES), Signal(range(_LINES))
        m.d.comb += [tags.eq(AnyConst(len(tags))), written.eq(AnyConst(_LINES)), at.eq(AnyConst(3)), Assume(at <= _LINES - 4)]

        read, row = Signal(), Signal(range(_LINES))
        tag, is_written = tags.bit_select(row, 1).replicate(10), written.bit_select(row, 1)
        port, o = reader.port, reader.o
        m.d.sync += [read.eq(port.enable), row.eq(port.address)]
        m.d.comb += [
            port.line.eq(Mux(read, row, ~row)),
            port.tag.eq(Mux(read, tag, ~tag)),
            port.written.eq(Mux(read, is_written, ~is_written)),
            reader.vectors.eq(vectors),
            reader.slot.eq(slot),
            reader.at.eq(at),
            reader.start.eq(self.start),
            o.ready.eq(self.ready),
        ]

        taken, waited, ended, wrong = Signal(), Signal(), Signal(), Signal()
        expected = Progress(m, vectors, slot, self.start, taken, "expected")
        found = [Signal(name=f"tag{number}") for number in range(4)]
        there = [Signal(name=f"there{number}") for number in range(4)]
        for number in range(4):
            m.d.comb += [found[number].eq(tags.bit_select(at + number, 1)), there[number].eq(written.bit_select(at + number, 1))]
        number_of_lines = Signal(3)
        m.d.comb += [
            number_of_lines.eq(Mux(slot == 2, vectors << 1, vectors)),
            wrong.eq(
                ((slot == 2) & ((found[0] != found[1]) | ((vectors == 2) & (found[2] != found[3]))))
                | ~there[0]
                | ((number_of_lines > 1) & ~there[1])
                | ((number_of_lines > 2) & ~(there[2] & there[3]))
            ),
        ]
        with m.If(reader.done & wrong):
            m.d.sync += expected.running.eq(0)
        m.d.sync += [waited.eq(o.valid & ~self.ready), ended.eq(taken & expected.last)]
        m.d.comb += [
            taken.eq(o.valid & self.ready),
            Assume(~self.start | ~expected.running),
            Assert(Mux(wrong, ~reader.done | expected.running, reader.done == ended)),
            Assert(~reader.done | (reader.no_tag == wrong)),
            Assert(~o.valid | (expected.running & ~wrong)),
            Assert(~waited | o.valid),
            Assert(~port.enable | (expected.running & (port.address >= at) & (port.address < at + number_of_lines))),
            Cover(reader.done & wrong & there[0] & there[1]),
            Cover(taken & expected.last & (expected.number == 3)),
        ]
        with m.If(o.valid):
            m.d.comb += [
                Assert(o.payload.line[:3] == (at + expected.number)[:3]),
                Assert(o.payload.tag.as_value() == tags.bit_select((at + expected.number)[:3], 1).replicate(10)),
                Assert(o.payload.last_of_vector == expected.last_of_vector),
                Assert(o.payload.last == expected.last),
            ]
        return m


class SilentReader(VectorReader):
    """Ends where a slot holds no vector, but does not say so."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        m.d.sync += self.no_tag.eq(0)
        return m


PROOFS = [
    Proof(
        name="cambriconq.movers.vector_reader.lines",
        spec=VectorReaderSpec,
        fault=lambda: VectorReaderSpec(SilentReader),
        engine="bmc",
        depth=12,
        cover_depth=18,
        reason="12 cycles are two vectors of one line or one of two with a few stalls, or two of two, anywhere in the buffer",
    )
]
