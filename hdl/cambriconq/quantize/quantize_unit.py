"""Rows of FP32 words to tagged vectors, line by line: the heart of QLOAD, QMOVE and QSTORE."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.tag import Tag
from nibblecore.hdl.cambriconq.program.job import elements_layout

from .squ import Squ
from .squ_setup import SquSettings

__all__ = ["QuantizeUnit", "line_layout"]

_BLOCK = 1024


def line_layout(cols: int) -> data.StructLayout:
    """A line of a slot: M nibbles, its vector's tag, and whether it is the vector's last and the shape's last."""
    return data.StructLayout({"line": 4 * cols, "tag": Tag, "last_of_vector": 1, "last": 1})


class QuantizeUnit(wiring.Component):
    """Pads every row with zeros to whole vectors, quantizes it in blocks of up to 1024 values, and cuts vectors into lines.

    A row is a block, or several if it is longer, so that all its vectors share a tag (docs/cambriconq.md). The values leave the SQU
    sign-extended, so that a slot's lines are just their nibbles.

    Latency: `Squ.latency` + M/``words`` cycles from the last value of a block to its first line, if the unit is empty, and a cycle more for
    every beat of nothing but zeros that fills the block up to whole vectors.
    Throughput: with ``wide`` ``words`` values a cycle in with one candidate, in c cycles with c; else a value a cycle, if it is not the
    candidates that take longer. A vector's lines leave while the next one comes.

    Parameters
    ----------
    cols : int
        M.
    words : int
        Lanes of the SQU, a power of two, at most M.

    Members
    -------
    settings : In(SquSettings)
        Constant while a shape passes.
    slot : In(3)
        Lines of a vector, 1..4, at least as many as any candidate needs.
    wide : In(1), if ``words`` > 1
        Rows come ``words`` values at a time. Constant while a shape passes.
    i : In(stream of `elements_layout`)
        One word if not ``wide``.
    o : Out(stream of `line_layout`)
    clear : In(1)
        Clears the flags; a cause in the same cycle counts.
    nan_seen, infinity_seen : Out(1)
        Flags of the SQU, sticky.
    """

    def __init__(self, cols: int, words: int = 1) -> None:
        if words > cols:
            raise ValueError(f"{words} words do not fit a vector of {cols} values")
        self.cols, self.words = cols, words
        super().__init__(
            {
                "settings": In(SquSettings),
                "slot": In(3),
                "i": In(stream.Signature(elements_layout(words))),
                "o": Out(stream.Signature(line_layout(cols))),
                "clear": In(1),
                "nan_seen": Out(1),
                "infinity_seen": Out(1),
                **({"wide": In(1)} if words > 1 else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.squ = squ = Squ(lanes=self.words, block=_BLOCK)
        m.d.comb += [
            squ.settings.eq(self.settings),
            squ.clear.eq(self.clear),
            self.nan_seen.eq(squ.nan_seen),
            self.infinity_seen.eq(squ.infinity_seen),
        ]
        ended = self._pad(m, squ)
        self._cut(m, squ, ended)
        return m

    def _pad(self, m: Module, squ: Squ) -> Signal:
        """Values and zeros into the SQU, a beat at a time; returns whether the block that leaves it is the shape's last."""
        m.submodules.ends = ends = SyncFIFO(width=1, depth=8)
        beats, element, beat = _BLOCK // self.words, self.i.payload, squ.i.payload
        place = Signal(range(beats))
        padding = Signal()
        ends_shape = Signal()
        complete = Signal()
        vector_ends = Signal()
        row_ends = Signal()
        taken = Signal()
        values, lane_full = self._beat(m)
        m.d.comb += [
            vector_ends.eq(place[: (self.cols // self.words).bit_length() - 1].all()),
            complete.eq(lane_full | element.last_of_row),
            row_ends.eq((padding | element.last_of_row) & vector_ends),
            squ.i.valid.eq(((self.i.valid & complete) | padding) & ends.w_rdy),
            beat.x.eq(Mux(padding, 0, values)),
            beat.last.eq(row_ends | place.all()),
            self.i.ready.eq(squ.i.ready & ~padding & ends.w_rdy),
            taken.eq(squ.i.valid & squ.i.ready),
        ]
        with m.If(taken):
            m.d.sync += place.eq(Mux(beat.last, 0, place + 1))
            with m.If(~padding):
                m.d.sync += [padding.eq(element.last_of_row & ~vector_ends), ends_shape.eq(element.last)]
            with m.Elif(vector_ends):
                m.d.sync += padding.eq(0)
        # Which of the blocks in the SQU ends the shape.
        m.d.comb += [
            ends.w_en.eq(taken & beat.last),
            ends.w_data.eq(row_ends & Mux(padding, ends_shape, element.last)),
            ends.r_en.eq(squ.o.valid & squ.o.ready & squ.o.payload.last),
        ]
        return ends.r_data

    def _beat(self, m: Module) -> tuple[Value, Value]:
        """What a beat for the SQU is with the values on offer, zeros where there are none, and whether they fill it."""
        words, element = self.words, self.i.payload
        if words == 1:
            return element.words, Const(1)
        lane = Signal(range(words))
        # The values of this beat so far. The one that fills it is not kept, so the last lane needs no place.
        kept = [Signal(32, name=f"kept{number}") for number in range(words - 1)]
        values = []
        for number in range(words):
            together = Mux(element.mask[number], element.words.word_select(number, 32), 0)
            before = kept[number] if number < words - 1 else 0
            values.append(Mux(self.wide, together, Mux(lane == number, element.words[:32], before)))
        with m.If(self.i.valid & self.i.ready & ~self.wide):
            m.d.sync += lane.eq(Mux(element.last_of_row, 0, lane + 1))
            for number, word in enumerate(kept):
                with m.If(element.last_of_row | lane.all()):
                    m.d.sync += word.eq(0)
                with m.Elif(lane == number):
                    m.d.sync += word.eq(element.words[:32])
        return Cat(values), self.wide | lane.all()

    def _cut(self, m: Module, squ: Squ, ended: Signal) -> None:
        """M values into a register, from there their nibbles line by line while the next M values arrive."""
        beats = self.cols // self.words
        beat = Signal(range(beats))
        values = Array(Signal(16 * self.words, name=f"values{number}", reset_less=True) for number in range(beats))
        full = Signal()
        plane = Signal(range(4))
        shown = Signal(16 * self.cols, reset_less=True)
        tag = Signal(Tag)
        last = Signal()
        complete = Signal()
        free = Signal()
        out = self.o.payload
        m.d.comb += [
            free.eq(~full | (self.o.ready & out.last_of_vector)),
            complete.eq(beat == beats - 1),
            squ.o.ready.eq(~complete | free),
            self.o.valid.eq(full),
            out.line.eq(Cat(shown.word_select(number, 16).word_select(plane, 4) for number in range(self.cols))),
            out.tag.eq(tag),
            out.last_of_vector.eq(plane == self.slot - 1),
            out.last.eq(out.last_of_vector & last),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += plane.eq(Mux(out.last_of_vector, 0, plane + 1))
            with m.If(out.last_of_vector):
                m.d.sync += full.eq(0)
        with m.If(squ.o.valid & squ.o.ready):
            m.d.sync += [beat.eq(beat + 1), values[beat].eq(squ.o.payload.q)]
            with m.If(complete):
                m.d.sync += [full.eq(1), beat.eq(0), tag.eq(squ.o.payload.tag), last.eq(squ.o.payload.last & ended)]
                m.d.sync += shown.eq(Cat(*list(values)[:-1], squ.o.payload.q))
