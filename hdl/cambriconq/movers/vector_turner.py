"""Transposes a matrix of quantized vectors, from a buffer to a buffer: VTURN."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.qbc import element_layout, line_layout, line_read
from nibblecore.hdl.cambriconq.buffers.tag import Tag

__all__ = ["VectorTurner"]

_DEPTH = 3
"""Elements under way: one in the buffer's read cycle, one on offer, one whose place is free again but not yet known to be."""
_LEAST_E = -128


class VectorTurner(wiring.Component):
    """Writes the columns of a matrix as rows, value by value (Section IV-B2).

    Value (i, j) of the rows × cols integers lies in the vector at line ``src + i·src_row + (j // M)·slot``, at place j % M. It goes to the
    vector at ``dest + j·dest_row + (i // M)·slot``, place i % M. Lines and distances count modulo ``lines``.

    All lines of the source are read first and looked at: one that no vector wrote, or whose tag is not that of its slot's first, ends
    it with ``no_tag`` before anything is written. Then each new vector is written as ``slot`` lines of zeros with the least tag there is, and
    its values one by one, i ascending, each with ``slot`` lines and the e of the vector that it comes from. So the QBC gives the new
    vector the greatest e of its values, and requantizes those that have another, one step after the other (see `Qbc`).

    Source and destination must not overlap. They may be in one buffer: a value is read only once there is room for it, so that reads
    end, and the QBC can use the port, while elements wait. No output depends on a ready within a cycle.

    Latency: the first read the cycle after ``start``; the first line of zeros n + 2 cycles after it, n the lines of the source.
    Throughput: a line a cycle of the first pass; ``slot`` cycles a value, and for each new vector ``slot`` cycles and the QBC's change of
    vector, in which up to three values are read ahead.

    Parameters
    ----------
    cols : int
        M, a power of two.
    lines : int
        Lines of the larger buffer, a power of two.

    Members
    -------
    start : In(1)
        Not from one start until its ``done``.
    rows, cols : In(16)
        Of the source, in values; at least 1.
    slot : In(3)
        Lines of a vector, 1..4.
    src, src_row, dest, dest_row : In(log2(lines))
        First lines, and lines from one row to the next. All constant from ``start`` until ``done``.
    done : Out(1)
        One cycle, after the destination is ``clean`` or a line was found wrong.
    no_tag : Out(1)
        With ``done``: some slot of the source holds no vector; nothing was written.
    port : In(line_read(cols, log2(lines)))
        To the source.
    line : Out(stream of `qbc.line_layout`)
    element : Out(stream of `qbc.element_layout`)
        To the destination.
    flush : Out(1)
        High after the last element until ``clean``.
    clean : In(1)
        Of the destination's QBC.
    """

    def __init__(self, cols: int, lines: int) -> None:
        self.columns, self.lines = cols, lines
        self.address_bits = (lines - 1).bit_length()
        at = In(self.address_bits)
        super().__init__(
            {
                "start": In(1),
                "rows": In(16),
                "cols": In(16),
                "slot": In(3),
                "src": at,
                "src_row": at,
                "dest": at,
                "dest_row": at,
                "done": Out(1),
                "no_tag": Out(1),
                "port": In(line_read(cols, self.address_bits)),
                "line": Out(stream.Signature(line_layout(lines, cols))),
                "element": Out(stream.Signature(element_layout(lines, cols))),
                "flush": Out(1),
                "clean": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = data.StructLayout({"value": signed(16), "e": signed(8), "last_of_vector": 1, "last_of_row": 1, "last": 1})
        m.submodules.values = values = SyncFIFO(width=value.size, depth=_DEPTH)
        turns = Signal()
        rewind = Signal()
        reads = Signal()
        wrong = Signal()
        checked = Signal()
        self._read(m, values, value(values.w_data), turns, rewind, reads, wrong, checked)

        # Out: lines of zeros, then the elements, of the vector at `at`.
        line, element, following = self.line.payload, self.element.payload, value(values.r_data)
        at = Signal(self.address_bits)
        row_at = Signal(self.address_bits)
        place = Signal(2)
        index = Signal(range(self.columns))
        last_place = Signal()
        taken = Signal()
        next_row = Signal(self.address_bits)
        m.d.comb += [
            line.line.eq(at + place),
            line.tag.e.eq(_LEAST_E),
            line.tag.size.eq(self.slot - 1),
            last_place.eq(place == self.slot - 1),
            element.line.eq(at),
            element.slot.eq(self.slot - 1),
            element.index.eq(index),
            element.tag.e.eq(following.e),
            element.tag.size.eq(self.slot - 1),
            element.value.eq(following.value),
            taken.eq(self.element.valid & self.element.ready),
            values.r_en.eq(taken),
            next_row.eq(row_at + self.dest_row),
        ]
        with m.If(self.line.valid & self.line.ready):
            m.d.sync += place.eq(Mux(last_place, 0, place + 1))
        with m.If(taken):
            m.d.sync += index.eq(Mux(following.last_of_vector, 0, index + 1))
            with m.If(following.last_of_row):
                m.d.sync += [at.eq(next_row), row_at.eq(next_row)]
            with m.Elif(following.last_of_vector):
                m.d.sync += at.eq(at + self.slot)

        m.d.sync += self.done.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += rewind.eq(1)
                m.d.sync += [at.eq(self.dest), row_at.eq(self.dest)]
                with m.If(self.start):
                    m.d.sync += self.no_tag.eq(0)
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += reads.eq(1)
                with m.If(wrong):
                    m.d.sync += [self.done.eq(1), self.no_tag.eq(1)]
                    m.next = "IDLE"
                with m.Elif(checked):
                    m.d.comb += rewind.eq(1)
                    m.next = "ZEROS"
            with m.State("ZEROS"):
                m.d.comb += [turns.eq(1), reads.eq(1), self.line.valid.eq(1)]
                with m.If(self.line.ready & last_place):
                    m.next = "ELEMENTS"
            with m.State("ELEMENTS"):
                m.d.comb += [turns.eq(1), reads.eq(1), self.element.valid.eq(values.r_rdy)]
                with m.If(taken & following.last):
                    m.next = "FLUSH"
                with m.Elif(taken & following.last_of_vector):
                    m.next = "ZEROS"
            with m.State("FLUSH"):
                m.d.comb += self.flush.eq(1)
                with m.If(self.clean):
                    m.d.sync += self.done.eq(1)
                    m.next = "IDLE"
        return m

    def _read(
        self,
        m: Module,
        values: SyncFIFO,
        value: data.View,
        turns: Signal,
        rewind: Signal,
        reads: Signal,
        wrong: Signal,
        checked: Signal,
    ) -> None:
        """Source vectors, a column of vectors after the other: once each, or with `turns` once for each of their values."""
        port = self.port
        # The line is `at` + `plane`; `at` is that of row i, `top` that of row 0; `place` is j % M.
        at = Signal(self.address_bits)
        top = Signal(self.address_bits)
        plane = Signal(2)
        place = Signal(range(self.columns))
        rows_left = Signal(16)
        cols_left = Signal(16)
        index = Signal(range(self.columns))
        left = Signal()
        room = Signal(range(_DEPTH + 1), init=_DEPTH)
        last_plane = Signal()
        last_row = Signal()
        last_place = Signal()
        last_col = Signal()
        m.d.comb += [
            port.enable.eq(reads & left & (~turns | (plane != 0) | (room != 0))),
            port.address.eq(at + plane),
            last_plane.eq(plane == self.slot - 1),
            last_row.eq(rows_left == 1),
            last_place.eq(~turns | (place == self.columns - 1)),
            last_col.eq(cols_left <= Mux(turns, 1, self.columns)),
        ]
        with m.If(port.enable):
            m.d.sync += plane.eq(Mux(last_plane, 0, plane + 1))
        with m.If(port.enable & last_plane):
            m.d.sync += [
                rows_left.eq(Mux(last_row, self.rows, rows_left - 1)),
                at.eq(Mux(last_row, top, at) + Mux(last_row, 0, self.src_row)),
                index.eq(Mux(last_row, 0, index + 1)),
            ]
            with m.If(last_row):
                m.d.sync += [place.eq(place + turns), cols_left.eq(cols_left - Mux(turns, 1, self.columns)), left.eq(~last_col)]
                with m.If(last_place):
                    m.d.sync += [at.eq(top + self.slot), top.eq(top + self.slot)]
        with m.If(rewind):
            m.d.sync += [
                at.eq(self.src),
                top.eq(self.src),
                plane.eq(0),
                place.eq(0),
                index.eq(0),
                left.eq(1),
                rows_left.eq(self.rows),
                cols_left.eq(self.cols),
            ]

        # What the port shows in this cycle.
        arrived = Signal()
        begins = Signal()
        ends = Signal()
        of_place = Signal.like(place)
        last_of_vector = Signal()
        last_of_row = Signal()
        last = Signal()
        # of the slot's lines before
        tag = Signal(Tag)
        low = Signal(12)
        nibble = Signal(4)
        m.d.sync += [
            arrived.eq(port.enable),
            begins.eq(plane == 0),
            ends.eq(last_plane),
            of_place.eq(place),
            last_of_row.eq(last_row),
            last_of_vector.eq(last_row | (index == self.columns - 1)),
            last.eq(last_plane & last_row & last_col),
        ]
        with m.If(arrived):
            m.d.sync += [tag.eq(port.tag), low.eq(Cat(low[4:], nibble))]
        m.d.comb += [
            wrong.eq(arrived & (~port.written | (~begins & (port.tag.as_value() != tag.as_value())))),
            checked.eq(arrived & last),
            nibble.eq(port.line.word_select(of_place, 4)),
            values.w_en.eq(arrived & ends & turns),
            value.e.eq(port.tag.e),
            value.last_of_vector.eq(last_of_vector),
            value.last_of_row.eq(last_of_row),
            value.last.eq(last),
        ]
        with m.Switch(self.slot):
            for slot in range(1, 5):
                with m.Case(slot):
                    m.d.comb += value.value.eq(Cat(low[16 - 4 * slot :], nibble).as_signed())
        m.d.sync += room.eq(room - (port.enable & turns & (plane == 0)) + (values.r_rdy & values.r_en))
