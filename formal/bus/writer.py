"""The write DMA obeys the channel rules, completes every burst it announced and writes each beat once, in order."""

from typing import Any

from amaranth import Array, Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.bus.streams import command_layout, connect
from nibblecore.hdl.bus.writer import AxiWriter

from .channel import assert_holds

__all__ = ["PROOFS"]

BUS_BYTES, MAX_BURST, MAX_OUTSTANDING = 4, 2, 2


class WriterSpec(wiring.Component):
    """A small writer, beats numbered modulo 8, and a memory that takes addresses and beats in any order."""

    def __init__(self, block: type[AxiWriter] = AxiWriter) -> None:
        self.block = block
        super().__init__(
            {
                "command": In(stream.Signature(command_layout())),
                "data_valid": In(1),
                "abandon": In(1),
                "awready": In(1),
                "wready": In(1),
                "bvalid": In(1),
                "bresp": In(2),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.writer = writer = self.block(BUS_BYTES, MAX_BURST, MAX_OUTSTANDING)
        axi = writer.m_axi

        # Bursts put up on AW whose beats have not all gone, oldest first; `due`: those that wait for nothing but the answer.
        lengths = Array([Signal(1, name="length0"), Signal(1, name="length1")])
        bursts, position = Signal(range(4)), Signal(1)
        due, addressed = Signal(range(4)), Signal(range(4))  # complete; address taken; neither answered
        waiting, new, beat, last, ended, answered = Signal(), Signal(), Signal(), Signal(), Signal(), Signal()
        sequence, taken_last = Signal(3), Signal(3)
        connect(m, self.command, writer.command)
        m.d.comb += [
            writer.data.valid.eq(self.data_valid),
            writer.data.payload.data.eq(sequence),
            writer.data.payload.strobe.eq(1),
            writer.abandon.eq(self.abandon),
            axi.awready.eq(self.awready),
            axi.wready.eq(self.wready),
            axi.bvalid.eq(self.bvalid & (due != 0) & (addressed != 0)),
            axi.bresp.eq(self.bresp),
            new.eq(axi.awvalid & ~waiting),
            beat.eq(axi.wvalid & axi.wready),
            last.eq(position == lengths[0]),
            ended.eq(beat & last),
            answered.eq(axi.bvalid & axi.bready),
        ]
        m.d.sync += [
            waiting.eq(axi.awvalid & ~axi.awready),
            bursts.eq(bursts + new - ended),
            due.eq(due + ended - answered),
            addressed.eq(addressed + (axi.awvalid & axi.awready) - answered),
        ]
        with m.If(beat):
            m.d.sync += position.eq(Mux(last, 0, position + 1))
        with m.If(ended):
            m.d.sync += lengths[0].eq(lengths[1])
        with m.If(new):
            m.d.sync += lengths[(bursts - ended)[:1]].eq(axi.awlen)

        # Beats of commands whose data have not been taken; giving up forgets them.
        owed = Signal(5)
        moved, accepted = Signal(), Signal()
        m.d.comb += [moved.eq(self.data_valid & writer.data.ready), accepted.eq(self.command.valid & self.command.ready)]
        with m.If(moved):
            m.d.sync += [sequence.eq(sequence + 1), taken_last.eq(sequence)]
        with m.If(self.abandon):
            m.d.sync += owed.eq(0)
        with m.Else():
            m.d.sync += owed.eq(owed + Mux(accepted, self.command.payload.beats, 0) - moved)

        giving_up = Signal()
        full = Signal()  # the beat on W was taken from the stream in the cycle before, or has been held since
        m.d.sync += giving_up.eq(self.abandon & ~writer.idle)
        with m.If(moved & ~self.abandon):
            m.d.sync += full.eq(1)
        with m.Elif(beat):
            m.d.sync += full.eq(0)
        assert_holds(m, "aw", axi.awvalid, axi.awready, axi.awaddr, axi.awlen)
        assert_holds(m, "w", axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast)
        m.d.comb += [
            Assume(self.command.payload.beats <= 3),
            Assume(~giving_up | self.abandon),
            Assert(bursts + due <= MAX_OUTSTANDING),
            Assert(Mux(axi.awvalid, axi.awaddr[:12] + (axi.awlen + 1) * BUS_BYTES <= 4096, 1)),
            Assert(Mux(axi.wvalid, (bursts != 0) & (axi.wlast == last), 1)),
            # Beats that count are those of the stream; those that only complete a burst write nothing.
            Assert(Mux(axi.wvalid, axi.wstrb == full, ~full)),
            Assert(Mux(full & ~giving_up, axi.wdata == taken_last, 1)),
            Assert(Mux(moved & ~self.abandon, owed != 0, 1)),
            Assert(Mux(writer.idle & ~self.abandon, owed == 0, 1)),
            Assert(Mux(writer.idle, (bursts == 0) & (due == 0) & ~axi.awvalid & ~axi.wvalid, 1)),
            Cover(ended & (sequence == 5) & (due == 1)),
            Cover(giving_up & writer.idle & (sequence == 3)),
        ]
        return m


class BreakingWriter(AxiWriter):
    """Leaves a burst unfinished when told to give up."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.abandon):
            m.d.sync += self.m_axi.wvalid.eq(0)
        return m


PROOFS = [
    Proof(
        name="bus.writer.beats",
        spec=WriterSpec,
        fault=lambda: WriterSpec(BreakingWriter),
        reason="up to 3 beats a command and 2 bursts of 2 outstanding bound the counters; the memory may act at any time",
    )
]
