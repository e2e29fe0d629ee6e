"""Reads a shape's words out of NBout, in order."""

from amaranth import Cat, Module, Signal
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
    requests that are granted are answered. No output depends on `o`'s ready within a cycle.

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
        step, granted, taken = walk.o.payload, Signal(), Signal()
        m.d.comb += [
            walk.start.eq(self.start),
            walk.shape.eq(self.shape),
            walk.place.eq(self.place),
            self.read.valid.eq(walk.o.valid & (room != 0)),
            self.read.payload.eq(step.address[lane_bits:]),
            walk.o.ready.eq(self.read.ready & (room != 0)),
            granted.eq(self.read.valid & self.read.ready),
            taken.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += room.eq(room - granted + taken)

        arrived, lane, flags = Signal(), Signal(lane_bits, reset_less=True), Signal(2, reset_less=True)
        m.d.sync += [arrived.eq(granted), lane.eq(step.address), flags.eq(Cat(step.last_of_row, step.last))]
        m.d.comb += [
            words.w_en.eq(arrived),
            words.w_data.eq(Cat(self.read_data.word_select(lane, 32), flags)),
            self.o.valid.eq(words.r_rdy),
            self.o.payload.eq(words.r_data),
            words.r_en.eq(self.o.ready),
        ]
        m.d.sync += self.done.eq((self.start & self.shape.empty) | (taken & self.o.payload.last))
        return m
