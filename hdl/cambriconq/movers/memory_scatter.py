"""Writes a stream of words to rows in memory."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout, connect, write_layout
from nibblecore.hdl.cambriconq.program.job import Place, Shape, elements_layout

from .memory_commands import WORD_BYTES, MemoryCommands
from .walk import Walk

__all__ = ["MemoryScatter"]


class MemoryScatter(wiring.Component):
    """A stream of words into rows of contiguous words, row i from ``at + i·row`` on; between it and the bus is an `AxiWriter`.

    Words are collected into beats; every beat is one of `MemoryCommands`' and writes the row's words in it and no other byte. Where
    rows overlap the later one stays: writes of one AXI ID reach a place in their order.

    Latency: the first command the cycle after ``start``; a beat in the cycle in which its last word is offered.
    Throughput: a word a cycle, a beat with ``wide``.

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
        In bytes, multiples of 4; ``col`` counts as 4. Both constant from ``start`` until ``done``.
    wide : In(1)
        Words come a beat at a time: only if ``place`` is (`Place.wide`). Constant as it is.
    done : Out(1)
        One cycle: every write has been answered. The cycle after ``start`` if the shape is empty.
    i : In(stream of `elements_layout`)
        One word if not ``wide``, whatever its mask; their ends do not matter.
    command : Out(stream of `command_layout`)
        To the writer.
    data : Out(stream of `write_layout`)
        The commands' beats, in order.
    writer_idle : In(1)
        ``idle`` of the writer.
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
                "i": In(stream.Signature(elements_layout(self.words))),
                "command": Out(stream.Signature(command_layout())),
                "data": Out(stream.Signature(write_layout(bus_bytes))),
                "writer_idle": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.commands = commands = MemoryCommands(self.bus_bytes)
        m.submodules.walk = walk = Walk(self.bus_bytes.bit_length() - 1, self.words, WORD_BYTES)
        for part in (commands, walk):
            m.d.comb += [
                part.start.eq(self.start),
                part.shape.eq(self.shape),
                part.place.at.eq(self.place.at),
                part.place.row.eq(self.place.row),
                part.place.col.eq(WORD_BYTES),
            ]
        m.d.comb += walk.wide.eq(self.wide)
        connect(m, commands.command, self.command)

        lanes, words = self.words, self.i.payload.words
        step, beat = walk.o.payload, self.data.payload
        lane = Signal(range(lanes))
        ends_beat = Signal()
        moves = Signal()
        # The words of this beat so far. The one that ends it is not kept, so the last lane needs no place.
        kept = [Signal(32, name=f"kept{number}", reset_less=True) for number in range(lanes - 1)]
        holds = Signal(lanes - 1)
        m.d.comb += [
            lane.eq(step.address[2:]),
            ends_beat.eq(self.wide | step.last_of_row | lane.all()),
            self.data.valid.eq(walk.o.valid & self.i.valid & ends_beat),
            self.i.ready.eq(walk.o.valid & (self.data.ready | ~ends_beat)),
            moves.eq(self.i.valid & self.i.ready),
            walk.o.ready.eq(moves),
        ]
        for number in range(lanes):
            held, word = holds[number] if number < lanes - 1 else 0, Mux(self.wide, words.word_select(number, 32), words[:32])
            here = Mux(self.wide, self.i.payload.mask[number], held | (lane == number))
            m.d.comb += [
                beat.data.word_select(number, 32).eq(Mux(held, kept[number], word) if number < lanes - 1 else word),
                beat.strobe.word_select(number, WORD_BYTES).eq(here.replicate(WORD_BYTES)),
            ]
        with m.If(moves):
            for number, word in enumerate(kept):
                with m.If(lane == number):
                    m.d.sync += [word.eq(words[:32]), holds[number].eq(1)]
            with m.If(ends_beat):
                m.d.sync += holds.eq(0)

        waiting = Signal()  # for answers
        with m.If(moves & step.last):
            m.d.sync += waiting.eq(1)
        with m.Elif(self.writer_idle):
            m.d.sync += waiting.eq(0)
        m.d.sync += self.done.eq((self.start & self.shape.empty) | (waiting & self.writer_idle))
        return m
