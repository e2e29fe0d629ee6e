"""Reads a shape's words out of memory, in order."""

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout, connect
from nibblecore.hdl.cambriconq.program.job import Place, Shape, elements_layout

from .memory_commands import WORD_BYTES, MemoryCommands
from .walk import Walk

__all__ = ["MemoryGather"]


class MemoryGather(wiring.Component):
    """Memory's words at ``at + i·row + j·col`` as a stream, row by row; between it and the bus is an `AxiReader`.

    Words side by side (col = 4) are read a row a command, others a beat an element (`MemoryCommands`). Commands are given as fast
    as the reader takes them, and the reader bounds how many are under way. A second walk finds the words in the
    beats that come back, so nothing is queued here.

    Latency: the first command the cycle after ``start``; a word in the cycle in which its beat is offered.
    Throughput: a word a cycle while the reader delivers a beat for each row's start and every bus_bytes/4 words; where
    elements are read one by one, a beat for each; with ``wide`` a beat a cycle.

    Parameters
    ----------
    bus_bytes : int
        Bytes in a beat, a power of two in 8..128; ValueError otherwise.

    Members
    -------
    start : In(1)
        Not from one start until its ``done``.
    shape : In(Shape)
    place : In(Place)
        In bytes, multiples of 4. Both constant from ``start`` until ``done``.
    wide : In(1)
        All words of a beat are taken together: only if ``place`` is (`Place.wide`). Constant as it is.
    done : Out(1)
        One cycle: the cycle after the last word was taken, or after ``start`` if the shape is empty.
    command : Out(stream of `command_layout`)
        To the reader.
    data : In(stream of 8·bus_bytes bits)
        The commands' beats, in order.
    o : Out(stream of `elements_layout`)
        One word if not ``wide``.
    """

    def __init__(self, bus_bytes: int) -> None:
        self.bus_bytes, self.words = bus_bytes, bus_bytes // WORD_BYTES
        super().__init__(
            {
                "start": In(1),
                "shape": In(Shape),
                "place": In(Place),
                "wide": In(1),
                "done": Out(1),
                "command": Out(stream.Signature(command_layout())),
                "data": In(stream.Signature(8 * bus_bytes)),
                "o": Out(stream.Signature(elements_layout(self.words))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.commands = commands = MemoryCommands(self.bus_bytes)
        m.submodules.walk = walk = Walk(self.bus_bytes.bit_length() - 1, self.words, WORD_BYTES)
        for part in (commands, walk):
            m.d.comb += [part.start.eq(self.start), part.shape.eq(self.shape), part.place.eq(self.place)]
        m.d.comb += walk.wide.eq(self.wide)
        connect(m, commands.command, self.command)

        step, beat = walk.o.payload, self.data.payload
        lane = Signal(range(self.words))
        ends_beat = Signal()
        moves = Signal()
        m.d.comb += [
            lane.eq(step.address[2:]),
            ends_beat.eq(self.wide | step.last_of_row | lane.all() | (self.place.col != WORD_BYTES)),
            self.o.valid.eq(self.data.valid & walk.o.valid),
            # The first word is that of the lane, which is 0 with `wide`.
            self.o.payload.words.eq(Cat(beat.word_select(lane, 32), beat[32:])),
            self.o.payload.mask.eq(step.mask),
            self.o.payload.last_of_row.eq(step.last_of_row),
            self.o.payload.last.eq(step.last),
            moves.eq(self.o.valid & self.o.ready),
            walk.o.ready.eq(self.data.valid & self.o.ready),
            self.data.ready.eq(walk.o.valid & self.o.ready & ends_beat),
        ]
        m.d.sync += self.done.eq((self.start & self.shape.empty) | (moves & step.last))
        return m
