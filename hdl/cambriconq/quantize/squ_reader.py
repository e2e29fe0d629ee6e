"""Sends blocks through the quantization lanes, once for each candidate."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SquReader"]


class SquReader(wiring.Component):
    """Reads the oldest block from the ring of values, beat after beat and candidate after candidate, as results find room.

    The first candidate of a block goes to the buffer that the block before it did not leave its results in, so it may overwrite
    those of the last block but one; any further candidate may overwrite those of the last block. A beat is read only when what
    its result may overwrite has left. Reading does not wait for anything else, and nothing downstream can stop a beat once it is read.

    Latency: none: a block's first beat is read in the cycle in which ``block_valid`` rises, if there is room.
    Throughput: a beat a cycle while there is room.

    Parameters
    ----------
    beats : int
        Largest number of beats in a block, a power of two.

    Members
    -------
    block_valid : In(1)
        There is a block to read; the two members that follow describe it. Until ``block_done``.
    last_beat : In(range(beats))
        Beats of the block, less one.
    last_candidate : In(2)
        Candidates, less one.
    block_done : Out(1)
        Its last beat is being read for the last time.
    read_enable : Out(1)
        A beat is read in this cycle; what follows describes it.
    read_address : Out(range(2 * beats))
        In the ring, which holds 2 · ``beats``.
    frees : Out(1)
        The beat being read will not be read again.
    candidate : Out(2)
        The one that it is read for.
    first, last : Out(1)
        The beat is the pass's first or last.
    drain_beat, drain_last : In(1)
        A result leaves its buffer; it is the last of its block. Blocks leave in order.
    """

    def __init__(self, beats: int) -> None:
        self.beats = beats
        super().__init__(
            {
                "block_valid": In(1),
                "last_beat": In(range(beats)),
                "last_candidate": In(2),
                "block_done": Out(1),
                "read_enable": Out(1),
                "read_address": Out(range(2 * beats)),
                "frees": Out(1),
                "candidate": Out(2),
                "first": Out(1),
                "last": Out(1),
                "drain_beat": In(1),
                "drain_last": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = Signal.like(self.last_beat)
        candidate = Signal(2)
        start = Signal.like(self.read_address)
        address = Signal.like(self.read_address)
        # Blocks read to their end whose results have not all left, and how many results of the oldest of them have.
        undrained = Signal(2)
        drained = Signal(range(self.beats + 1))
        allowed = Signal(2)
        again = Signal()
        room = Signal()
        m.d.comb += [
            allowed.eq(Mux(candidate == 0, 2, 1)),
            room.eq((undrained < allowed) | (undrained == allowed) & (drained > beat)),
            again.eq(candidate != self.last_candidate),
            self.read_enable.eq(self.block_valid & room),
            self.read_address.eq(address),
            self.candidate.eq(candidate),
            self.first.eq(beat == 0),
            self.last.eq(beat == self.last_beat),
            self.frees.eq(self.read_enable & ~again),
            self.block_done.eq(self.frees & self.last),
        ]
        with m.If(self.read_enable):
            m.d.sync += [beat.eq(Mux(self.last, 0, beat + 1)), address.eq(Mux(self.last & again, start, address + 1))]
            with m.If(self.last):
                m.d.sync += candidate.eq(Mux(again, candidate + 1, 0))
        with m.If(self.block_done):
            m.d.sync += start.eq(address + 1)
        m.d.sync += undrained.eq(undrained + self.block_done - self.drain_last)
        with m.If(self.drain_beat):
            m.d.sync += drained.eq(Mux(self.drain_last, 0, drained + 1))
        return m
