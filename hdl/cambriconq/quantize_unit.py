"""Rows of FP32 words to tagged vectors, line by line: the heart of QLOAD, QMOVE and QSTORE."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from .job import Element
from .squ import Squ
from .squ_setup import SquSettings
from .tag import Tag

__all__ = ["QuantizeUnit", "line_layout"]

_BLOCK = 1024


def line_layout(cols: int) -> data.StructLayout:
    """A line of a slot: M nibbles, its vector's tag, and whether it is the vector's last and the shape's last."""
    return data.StructLayout({"line": 4 * cols, "tag": Tag, "last_of_vector": 1, "last": 1})


class QuantizeUnit(wiring.Component):
    """Pads every row with zeros to whole vectors, quantizes it in blocks of up to 1024 values, and cuts vectors into lines.

    A row is a block, or several if it is longer, so that all its vectors share a tag (docs/cambriconq.md). The values leave the SQU
    sign-extended, so that a slot's lines are just their nibbles.

    Throughput: a value a cycle in with one candidate, one in c cycles with c; a vector's lines leave while the next one comes.

    Parameters
    ----------
    cols : int
        M.

    Members
    -------
    settings : In, `SquSettings`
        Constant while a shape passes.
    slot : In
        Lines of a vector, 1..4, at least as many as any candidate needs.
    i : In stream of `Element`
    o : Out stream of `line_layout`
    clear : In; nan_seen, infinity_seen : Out
        Flags of the SQU.
    """

    def __init__(self, cols: int) -> None:
        self.cols = cols
        super().__init__({
            "settings": In(SquSettings), "slot": In(3), "i": In(stream.Signature(Element)), "o": Out(stream.Signature(line_layout(cols))),
            "clear": In(1), "nan_seen": Out(1), "infinity_seen": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.squ = squ = Squ(lanes=1, block=_BLOCK)
        m.d.comb += [
            squ.settings.eq(self.settings), squ.clear.eq(self.clear), self.nan_seen.eq(squ.nan_seen),
            self.infinity_seen.eq(squ.infinity_seen),
        ]  # fmt: skip
        ended = self._pad(m, squ)
        self._cut(m, squ, ended)
        return m

    def _pad(self, m: Module, squ: Squ) -> Signal:
        """Values and zeros into the SQU; returns whether the block that leaves it is the shape's last."""
        m.submodules.ends = ends = SyncFIFO(width=1, depth=8)
        place, padding, ends_shape = Signal(range(_BLOCK)), Signal(), Signal()
        vector_ends, row_ends, taken = Signal(), Signal(), Signal()
        column_bits = self.cols.bit_length() - 1
        m.d.comb += [
            vector_ends.eq(place[:column_bits].all()),
            row_ends.eq((padding | self.i.payload.last_of_row) & vector_ends),
            squ.i.valid.eq((self.i.valid | padding) & ends.w_rdy),
            squ.i.payload.x.eq(Mux(padding, 0, self.i.payload.word)),
            squ.i.payload.last.eq(row_ends | place.all()),
            self.i.ready.eq(squ.i.ready & ~padding & ends.w_rdy),
            taken.eq(squ.i.valid & squ.i.ready),
        ]
        with m.If(taken):
            m.d.sync += [place.eq(Mux(squ.i.payload.last, 0, place + 1))]
            with m.If(~padding):
                m.d.sync += [padding.eq(self.i.payload.last_of_row & ~vector_ends), ends_shape.eq(self.i.payload.last)]
            with m.Elif(vector_ends):
                m.d.sync += padding.eq(0)
        # Which of the blocks in the SQU ends the shape.
        m.d.comb += [
            ends.w_en.eq(taken & squ.i.payload.last),
            ends.w_data.eq(row_ends & Mux(padding, ends_shape, self.i.payload.last)),
            ends.r_en.eq(squ.o.valid & squ.o.ready & squ.o.payload.last),
        ]
        return ends.r_data

    def _cut(self, m: Module, squ: Squ, ended: Signal) -> None:
        """M values into a register, from there their nibbles line by line while the next M values arrive."""
        column = Signal(range(self.cols))
        values = Array(Signal(16, name=f"value{number}", reset_less=True) for number in range(self.cols))
        full, plane = Signal(), Signal(range(4))
        shown = Array(Signal(16, name=f"shown{number}", reset_less=True) for number in range(self.cols))
        tag, last, complete, free = Signal(Tag), Signal(), Signal(), Signal()
        out = self.o.payload
        m.d.comb += [
            free.eq(~full | (self.o.ready & out.last_of_vector)),
            complete.eq(column == self.cols - 1),
            squ.o.ready.eq(~complete | free),
            self.o.valid.eq(full),
            out.line.eq(Cat(value.word_select(plane, 4) for value in shown)),
            out.tag.eq(tag),
            out.last_of_vector.eq(plane == self.slot - 1),
            out.last.eq(out.last_of_vector & last),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += plane.eq(Mux(out.last_of_vector, 0, plane + 1))
            with m.If(out.last_of_vector):
                m.d.sync += full.eq(0)
        with m.If(squ.o.valid & squ.o.ready):
            m.d.sync += [column.eq(column + 1), values[column].eq(squ.o.payload.q)]
            with m.If(complete):
                m.d.sync += [full.eq(1), column.eq(0), tag.eq(squ.o.payload.tag), last.eq(squ.o.payload.last & ended)]
                m.d.sync += [new.eq(old) for new, old in zip(shown, [*list(values)[:-1], squ.o.payload.q], strict=True)]
