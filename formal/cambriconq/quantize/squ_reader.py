"""The reader sends every block through the lanes once for each candidate, and no result overwrites one that has not left."""

from amaranth import Array, Module, Mux, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.quantize.squ_reader import SquReader

__all__ = ["PROOFS"]

_BEATS = 4


class SquReaderSpec(wiring.Component):
    """Any blocks, any winners, results that leave whenever they like. With `fault`, the reader thinks each result is a block's last.

    `occupied` is what the arbiter's two buffers hold: a block's best results from the moment its last beat is read.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"arrives": In(1), "last_beat": In(2), "last_candidate": In(2), "winner": In(1), "leaves": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reader = reader = SquReader(_BEATS)
        valid, last_beat, last_candidate = Signal(), Signal(2), Signal(2)
        m.d.comb += [reader.block_valid.eq(valid), reader.last_beat.eq(last_beat), reader.last_candidate.eq(last_candidate)]
        with m.If(~valid | reader.block_done):
            m.d.sync += [valid.eq(self.arrives), last_beat.eq(self.last_beat), last_candidate.eq(self.last_candidate)]

        # Blocks that are read and have not left: a queue of which buffer, and up to which beat.
        buffers, ends, count = (
            [Signal(name=f"buffer{i}") for i in range(4)],
            [Signal(2, name=f"end{i}") for i in range(4)],
            Signal(3),
        )
        put, take, drained, drains = Signal(2), Signal(2), Signal(2), Signal()
        head_buffer, head_end, ends_block = Array(buffers)[take], Array(ends)[take], Signal()
        m.d.comb += [drains.eq(self.leaves & (count != 0)), ends_block.eq(drains & (drained == head_end))]
        m.d.comb += [reader.drain_beat.eq(drains), reader.drain_last.eq(drains if self.fault else ends_block)]
        target, keeps, previous = Signal(), Signal(), Signal()
        m.d.comb += [target.eq(~previous), keeps.eq(Mux(last_candidate == 0, target, self.winner))]
        m.d.sync += [count.eq(count + reader.block_done - ends_block), take.eq(take + ends_block), put.eq(put + reader.block_done)]
        occupied = [[Signal(name=f"occupied{buffer}_{beat}") for beat in range(_BEATS)] for buffer in range(2)]
        with m.If(drains):
            m.d.sync += drained.eq(Mux(ends_block, 0, drained + 1))
            for buffer in range(2):
                for beat in range(_BEATS):
                    with m.If((head_buffer == buffer) & (drained == beat)):
                        m.d.sync += occupied[buffer][beat].eq(0)
        with m.If(reader.block_done):
            m.d.sync += [Array(buffers)[put].eq(keeps), Array(ends)[put].eq(last_beat), previous.eq(keeps)]
            for buffer in range(2):
                for beat in range(_BEATS):
                    with m.If((keeps == buffer) & (beat <= last_beat)):
                        m.d.sync += occupied[buffer][beat].eq(1)

        # What is to be read next.
        beat, candidate, start = Signal(2), Signal(2), Signal(3)
        with m.If(reader.read_enable):
            m.d.sync += beat.eq(Mux(beat == last_beat, 0, beat + 1))
            with m.If(beat == last_beat):
                m.d.sync += candidate.eq(Mux(candidate == last_candidate, 0, candidate + 1))
                with m.If(candidate == last_candidate):
                    m.d.sync += start.eq(start + last_beat + 1)
            m.d.comb += [
                Assert(valid),
                Assert(reader.candidate == candidate),
                Assert(reader.read_address == (start + beat)[:3]),
                Assert(reader.first == (beat == 0)),
                Assert(reader.last == (beat == last_beat)),
                Assert(reader.frees == (candidate == last_candidate)),
            ]
            for buffer in range(2):
                hit = Array(occupied[buffer])[beat]
                m.d.comb += Assert(~hit | (candidate == 0) & (target != buffer))
        m.d.comb += [
            Assert(reader.block_done == (reader.read_enable & (beat == last_beat) & (candidate == last_candidate))),
            Assert(count <= 3),
            Assert(reader.read_enable | ~valid | (count != 0)),
            Cover((count == 3) & valid),
            Cover((count == 2) & reader.read_enable & (beat == 1)),
            Cover(reader.block_done & (candidate == 3) & (beat == 2) & (count == 1)),
        ]
        return m


PROOFS = [
    Proof(
        name="cambriconq.quantize.squ_reader.order",
        spec=SquReaderSpec,
        fault=lambda: SquReaderSpec(fault=True),
        cover_depth=24,
        reason="unbounded; blocks of up to four beats, any number of candidates, any winner",
    )
]
