"""The read DMA obeys the channel rules and delivers exactly the beats it was asked for, in order."""

from typing import Any

from amaranth import Array, Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.bus.reader import AxiReader
from nibblecore.hdl.bus.streams import command_layout, connect

from .channel import assert_holds

__all__ = ["PROOFS"]

BUS_BYTES, MAX_BURST, MAX_OUTSTANDING = 4, 2, 2


class ReaderSpec(wiring.Component):
    """A small reader and a memory that answers in order, whenever it likes, numbering the beats modulo 8."""

    def __init__(self, block: type[AxiReader] = AxiReader) -> None:
        self.block = block
        super().__init__(
            {
                "command": In(stream.Signature(command_layout())),
                "data_ready": In(1),
                "abandon": In(1),
                "arready": In(1),
                "rvalid": In(1),
                "rresp": In(2),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.reader = reader = self.block(BUS_BYTES, MAX_BURST, MAX_OUTSTANDING)
        axi = reader.m_axi

        # Bursts the memory owes, oldest first: their ARLEN, and the beats of the oldest that have gone.
        lengths = Array([Signal(1, name="length0"), Signal(1, name="length1")])
        owed_bursts, position = Signal(range(4)), Signal(1)
        arrivals, deliveries = Signal(3), Signal(3)
        last, taken, arrived, ended = Signal(), Signal(), Signal(), Signal()
        connect(m, self.command, reader.command)
        m.d.comb += [
            reader.data.ready.eq(self.data_ready),
            reader.abandon.eq(self.abandon),
            axi.arready.eq(self.arready),
            axi.rvalid.eq(self.rvalid & (owed_bursts != 0)),
            axi.rresp.eq(self.rresp),
            axi.rdata.eq(arrivals),
            last.eq(position == lengths[0]),
            axi.rlast.eq(last),
            taken.eq(axi.arvalid & axi.arready),
            arrived.eq(axi.rvalid & axi.rready),
            ended.eq(arrived & last),
        ]
        m.d.sync += [owed_bursts.eq(owed_bursts + taken - ended), arrivals.eq(arrivals + arrived)]
        with m.If(arrived):
            m.d.sync += position.eq(Mux(last, 0, position + 1))
        with m.If(ended):
            m.d.sync += lengths[0].eq(lengths[1])
        with m.If(taken):
            m.d.sync += lengths[(owed_bursts - ended)[:1]].eq(axi.arlen)

        # Beats asked for and not delivered; giving up forgets them.
        owed = Signal(5)
        delivered, accepted = Signal(), Signal()
        m.d.comb += [delivered.eq(reader.data.valid & self.data_ready), accepted.eq(self.command.valid & self.command.ready)]
        m.d.sync += deliveries.eq(deliveries + delivered)
        with m.If(self.abandon):
            m.d.sync += [owed.eq(0), deliveries.eq(arrivals + arrived)]
        with m.Else():
            m.d.sync += owed.eq(owed + Mux(accepted, self.command.payload.beats, 0) - delivered)

        giving_up = Signal()
        m.d.sync += giving_up.eq(self.abandon & ~reader.idle)
        assert_holds(m, "ar", axi.arvalid, axi.arready, axi.araddr, axi.arlen)
        assert_holds(m, "data", reader.data.valid, self.data_ready, reader.data.payload, unless=self.abandon)
        m.d.comb += [
            Assume(self.command.payload.beats <= 3),
            Assume(~giving_up | self.abandon),
            Assert(owed_bursts <= MAX_OUTSTANDING),
            Assert(Mux(axi.arvalid, axi.araddr[:12] + (axi.arlen + 1) * BUS_BYTES <= 4096, 1)),
            Assert(Mux(axi.arvalid, axi.arlen < MAX_BURST, 1)),
            Assert(Mux(reader.data.valid, (owed != 0) & (reader.data.payload == deliveries) & ~self.abandon, 1)),
            Assert(Mux(reader.idle & ~self.abandon, owed == 0, 1)),
            Assert(Mux(reader.idle, (owed_bursts == 0) & ~axi.arvalid & ~reader.data.valid, 1)),
            Cover(delivered & (arrivals == 5) & (owed_bursts == 2)),
            Cover(giving_up & reader.idle & (arrivals == 3)),
        ]
        return m


class WithdrawingReader(AxiReader):
    """Takes an address back when told to give up."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.abandon):
            m.d.sync += self.m_axi.arvalid.eq(0)
        return m


class ForgetfulReader(AxiReader):
    """Admits a beat when both places are full."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.m_axi.rready.eq(1)
        return m


PROOFS = [
    Proof(
        name="bus.reader.beats",
        spec=ReaderSpec,
        fault=lambda: ReaderSpec(ForgetfulReader),
        slow=True,
        reason="up to 3 beats a command and 2 bursts of 2 outstanding bound the counters; the memory may answer at any time",
    ),
    Proof(
        name="bus.reader.address_holds",
        spec=ReaderSpec,
        fault=lambda: ReaderSpec(WithdrawingReader),
        reason="the same specification against another fault",
        slow=True,
    ),
]
