"""Reads a shape's words out of NBout, in order."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from .job import Element, Place, Shape
from .nbout import row_bits
from .walk import Walk

__all__ = ["Gather"]

_DEPTH = 3
"""Words under way: one in the banks' read cycle, one on offer, one whose place is free again but not yet known to be."""


class Gather(wiring.Component):
    """NBout's words at ``at + i·row + j·col`` as a stream, row by row.

    A row of NBout is requested once there is room for its word, so data are never refused and the read port can be shared: only
    requests that are granted are answered. Words that follow each other in one row need one request, so that walking along rows
    leaves the port to others. No output depends on `o`'s ready within a cycle.

    A row is seen as it was when it was requested: words of it that are written between that and their own turn come old.

    Latency: the first request the cycle after `start`; a word two cycles after its request was granted. Throughput: a word a cycle.

    Parameters
    ----------
    lanes : int
        Banks of NBout, a power of two, at least 2.
    address_bits : int
        Of a word in NBout.

    Members
    -------
    start : In
        Not from one start until its `done`.
    shape : In, `Shape`
    place : In, `Place`
        In words. Both constant from `start` until `done`.
    done : Out
        One cycle, after the last word was taken; the cycle after `start` if the shape is empty.
    read : Out stream of rows of NBout
        Valid requests, ready grants; for `Nbout`, ``read_enable`` is both.
    read_data : In, lanes × 32 bits
        The row requested, the cycle after it was granted.
    o : Out stream of `Element`
    """

    def __init__(self, lanes: int, address_bits: int) -> None:
        bits = row_bits(1 << address_bits, lanes)
        self.lanes, self.address_bits = lanes, address_bits
        super().__init__({
            "start": In(1), "shape": In(Shape), "place": In(Place), "done": Out(1),
            "read": Out(stream.Signature(bits)), "read_data": In(32 * lanes), "o": Out(stream.Signature(Element)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walk = walk = Walk(self.address_bits)
        m.submodules.words = words = SyncFIFO(width=Element.as_shape().size, depth=_DEPTH)
        lane_bits = self.lanes.bit_length() - 1
        room = Signal(range(_DEPTH + 1), init=_DEPTH)
        step, row, granted, moves, taken = walk.o.payload, Signal(len(self.read.payload)), Signal(), Signal(), Signal()
        last_row, same = Signal.like(row, reset_less=True), Signal()
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

        arrived, fresh, lane = Signal(), Signal(), Signal(lane_bits, reset_less=True)
        held, words_of_row, flags = Signal(32 * self.lanes, reset_less=True), Signal(32 * self.lanes), Signal(2, reset_less=True)
        m.d.sync += [arrived.eq(moves), fresh.eq(granted), lane.eq(step.address), flags.eq(Cat(step.last_of_row, step.last))]
        m.d.comb += [
            words_of_row.eq(Mux(fresh, self.read_data, held)),
            words.w_en.eq(arrived),
            words.w_data.eq(Cat(words_of_row.word_select(lane, 32), flags)),
            self.o.valid.eq(words.r_rdy),
            self.o.payload.eq(words.r_data),
            words.r_en.eq(self.o.ready),
        ]
        with m.If(fresh):
            m.d.sync += held.eq(self.read_data)
        m.d.sync += self.done.eq((self.start & self.shape.empty) | (taken & self.o.payload.last))
        return m
