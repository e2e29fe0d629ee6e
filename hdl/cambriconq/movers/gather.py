"""Reads a shape's words out of NBout, in order."""

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.nbout import row_bits
from nibblecore.hdl.cambriconq.program.job import Place, Shape, elements_layout

from .rows_walk import RowsWalk
from .walk import Walk

__all__ = ["Gather"]

_DEPTH = 3
"""Steps under way: one in the banks' read cycle, one on offer, one whose place is free again but not yet known to be."""


class Gather(wiring.Component):
    """NBout's words at ``at + i·row + j·col`` as a stream, row by row.

    A row of NBout is requested once there is room for its word, so data are never refused and the read port can be shared: only
    requests that are granted are answered. Words that follow each other in one row need one request, so that walking along rows
    leaves the port to others. No output depends on ``o``'s ready within a cycle.

    A row is seen as it was when it was requested: words of it that are written between that and their own turn come old.

    Latency: the first request the cycle after ``start``; a word two cycles after its request was granted. Throughput: a word a cycle,
    ``words`` of them with ``wide``.

    Parameters
    ----------
    lanes : int
        Banks of NBout, a power of two, at least 2.
    address_bits : int
        Of a word in NBout.
    words : int
        Taken together with ``wide``; a power of two, at most ``lanes``. With more than one of the ``rows`` an element is always the word
        that is asked for, and behind it those that follow it in its group of ``words``: who asks walks from group to group.
    rows : int
        Walked together with ``together`` (`RowsWalk`); a power of two.

    Members
    -------
    start : In(1)
        Not from one start until its ``done``.
    shape : In(Shape)
    place : In(Place)
        In words. Both constant from ``start`` until ``done``.
    wide : In(1), if ``words`` > 1 and not ``rows``
        Only if ``place`` is (`Place.wide`). Constant as it is.
    together : In(1), if ``rows`` > 1
        Constant as ``place``.
    done : Out(1)
        One cycle: the cycle after the last word was taken, or after ``start`` if the shape is empty.
    read : Out(stream of rows of NBout)
        Valid requests, ready grants; for `Nbout`, ``read_enable`` is both.
    read_data : In(32 * lanes)
        The row requested, the cycle after it was granted.
    o : Out(stream of `elements_layout`)
        One word if not ``wide``.
    """

    def __init__(self, lanes: int, address_bits: int, words: int = 1, rows: int = 1) -> None:
        bits = row_bits(1 << address_bits, lanes)
        if words > lanes:
            raise ValueError(f"{words} words do not fit a row of {lanes} lanes")
        self.lanes, self.address_bits, self.words, self.rows = lanes, address_bits, words, rows
        super().__init__(
            {
                "start": In(1),
                "shape": In(Shape),
                "place": In(Place),
                "done": Out(1),
                "read": Out(stream.Signature(bits)),
                "read_data": In(32 * lanes),
                "o": Out(stream.Signature(elements_layout(words, rows))),
                **({"together": In(1)} if rows > 1 else {"wide": In(1)} if words > 1 else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walk = walk = self._walk(m)
        m.submodules.words = words = SyncFIFO(width=elements_layout(self.words, self.rows).size, depth=_DEPTH)
        lane_bits = self.lanes.bit_length() - 1
        room = Signal(range(_DEPTH + 1), init=_DEPTH)
        step = walk.o.payload
        row = Signal(len(self.read.payload))
        granted = Signal()
        moves = Signal()
        taken = Signal()
        last_row = Signal.like(row, reset_less=True)
        same = Signal()
        known = Signal()  # whether a row has been read since the start
        m.d.comb += [
            walk.start.eq(self.start),
            walk.shape.eq(self.shape),
            walk.place.eq(self.place),
            row.eq(step.address[lane_bits:]),
            same.eq(known & (row == last_row)),
            self.read.valid.eq(walk.o.valid & (room != 0) & ~same),
            self.read.payload.eq(row),
            walk.o.ready.eq((self.read.ready | same) & (room != 0)),
            granted.eq(self.read.valid & self.read.ready),
            moves.eq(walk.o.valid & walk.o.ready),
            taken.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += room.eq(room - moves + taken)
        with m.If(granted):
            m.d.sync += [last_row.eq(row), known.eq(1)]
        with m.If(self.start):
            m.d.sync += known.eq(0)

        arrived = Signal()
        fresh = Signal()
        lane = Signal(lane_bits, reset_less=True)
        held = Signal(32 * self.lanes, reset_less=True)
        words_of_row = Signal(32 * self.lanes)
        marks = self._marks(step)
        flags = Signal(len(marks), reset_less=True)
        m.d.sync += [arrived.eq(moves), fresh.eq(granted), lane.eq(step.address), flags.eq(marks)]
        m.d.comb += [
            words_of_row.eq(Mux(fresh, self.read_data, held)),
            words.w_en.eq(arrived),
            words.w_data.eq(Cat(self._chosen(words_of_row, lane), flags)),
            self.o.valid.eq(words.r_rdy),
            self.o.payload.eq(words.r_data),
            words.r_en.eq(self.o.ready),
        ]
        with m.If(fresh):
            m.d.sync += held.eq(self.read_data)
        m.d.sync += self.done.eq((self.start & self.shape.empty) | (taken & self.o.payload.last))
        return m

    def _walk(self, m: Module) -> Walk | RowsWalk:
        if self.rows > 1:
            rows_walk = RowsWalk(self.address_bits, self.rows)
            m.d.comb += rows_walk.together.eq(self.together)
            return rows_walk
        walk = Walk(self.address_bits, self.words)
        if self.words > 1:
            m.d.comb += walk.wide.eq(self.wide)
        return walk

    def _marks(self, step: Any) -> Value:
        """All of an element but its words."""
        if self.rows > 1:
            return Cat(Const(-1, self.words), step.last_of_row, step.last, step.row, step.first_of_row)
        return Cat(step.mask, step.last_of_row, step.last)

    def _chosen(self, row: Value, lane: Value) -> Value:
        """The word of a lane, before those that follow it in a wide step."""
        word = row.word_select(lane, 32)
        if self.words == 1:
            return word
        groups = [row.word_select(number, 32 * self.words) for number in range(self.lanes // self.words)]
        return Cat(word, Array(groups)[lane >> self.words.bit_length() - 1][32:])
