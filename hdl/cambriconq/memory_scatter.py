"""Writes a stream of words to rows in memory."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..bus.splitter import command_layout
from .job import Place, Shape
from .memory_commands import WORD_BYTES, MemoryCommands
from .walk import Walk

__all__ = ["MemoryScatter"]


class MemoryScatter(wiring.Component):
    """A stream of words into rows of contiguous words, row i from ``at + i·row`` on; between it and the bus is an `AxiWriter`.

    Words are collected into beats; every beat is one of `MemoryCommands`' and writes the row's words in it and no other byte. Where
    rows overlap the later one stays: writes of one AXI ID reach a place in their order.

    Latency: the first command the cycle after `start`; a beat in the cycle in which its last word is offered.
    Throughput: a word a cycle.

    Parameters
    ----------
    bus_bytes : int
        Bytes in a beat, a power of two in 8..128.

    Members
    -------
    start : In
        Not from one start until its `done`.
    shape : In, `Shape`
    place : In, `Place`
        In bytes, multiples of 4; `col` counts as 4. Both constant from `start` until `done`.
    done : Out
        One cycle: every write has been answered. The cycle after `start` if the shape is empty.
    i : In stream of 32 bits
    command : Out stream of `command_layout`
    data : Out stream of {data: 8·bus_bytes, strobe: bus_bytes}
    writer_idle : In
        `idle` of the writer.
    """

    def __init__(self, bus_bytes: int) -> None:
        self.bus_bytes = bus_bytes
        super().__init__({
            "start": In(1), "shape": In(Shape), "place": In(Place), "done": Out(1), "i": In(stream.Signature(32)),
            "command": Out(stream.Signature(command_layout())),
            "data": Out(stream.Signature(data.StructLayout({"data": 8 * bus_bytes, "strobe": bus_bytes}))),
            "writer_idle": In(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.commands = commands = MemoryCommands(self.bus_bytes)
        m.submodules.walk = walk = Walk(self.bus_bytes.bit_length() - 1)
        for part in (commands, walk):
            m.d.comb += [
                part.start.eq(self.start), part.shape.eq(self.shape),
                part.place.at.eq(self.place.at), part.place.row.eq(self.place.row), part.place.col.eq(WORD_BYTES),
            ]  # fmt: skip
        wiring.connect(m, commands.command, wiring.flipped(self.command))

        lanes = self.bus_bytes // WORD_BYTES
        step, beat = walk.o.payload, self.data.payload
        lane = Signal(range(lanes))
        ends_beat, moves = Signal(), Signal()
        # The words of this beat so far. The one that ends it is not kept, so the last lane needs no place.
        kept = [Signal(32, name=f"kept{number}", reset_less=True) for number in range(lanes - 1)]
        holds = Signal(lanes - 1)
        m.d.comb += [
            lane.eq(step.address[2:]),
            ends_beat.eq(step.last_of_row | lane.all()),
            self.data.valid.eq(walk.o.valid & self.i.valid & ends_beat),
            self.i.ready.eq(walk.o.valid & (self.data.ready | ~ends_beat)),
            moves.eq(self.i.valid & self.i.ready),
            walk.o.ready.eq(moves),
        ]
        for number in range(lanes):
            held = holds[number] if number < lanes - 1 else 0
            m.d.comb += [
                beat.data.word_select(number, 32).eq(
                    Mux(held, kept[number], self.i.payload) if number < lanes - 1 else self.i.payload
                ),
                beat.strobe.word_select(number, WORD_BYTES).eq((held | (lane == number)).replicate(WORD_BYTES)),
            ]
        with m.If(moves):
            for number, word in enumerate(kept):
                with m.If(lane == number):
                    m.d.sync += [word.eq(self.i.payload), holds[number].eq(1)]
            with m.If(ends_beat):
                m.d.sync += holds.eq(0)

        waiting = Signal()  # for answers
        with m.If(moves & step.last):
            m.d.sync += waiting.eq(1)
        with m.Elif(self.writer_idle):
            m.d.sync += waiting.eq(0)
        m.d.sync += self.done.eq((self.start & self.shape.empty) | (waiting & self.writer_idle))
        return m
