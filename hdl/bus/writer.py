"""Write DMA: commands and beats in, memory written."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from .axi4 import BURST_INCR, CACHE_NORMAL, Axi4Write, Response
from .burst_splitter import BurstSplitter, check_burst
from .streams import command_layout, connect, write_layout

__all__ = ["AxiWriter"]


class AxiWriter(wiring.Component):
    """Writes runs of beats over AXI4; beats belong to the commands in order.

    Commands are split by `BurstSplitter`. A burst's address is put up as soon as its command is known; its data follow
    when they come and do not wait for the address to be taken, so that either order suits the memory. Beats are taken
    only once their burst's address is on the bus. No output of ``m_axi`` depends on one of its inputs within a cycle.

    Latency: AWVALID two cycles after the command is taken; WVALID one cycle after a beat is taken, the first beat of a burst not
    before AWVALID.
    Throughput: one beat a cycle, across bursts and commands, while the bursts outstanding cover the memory's latency L, from
    the last beat of a burst to its response: (``max_outstanding`` − 1) · (beats a burst) ≥ L + 2.

    Parameters
    ----------
    bus_bytes : int
        Width of the data bus, a power of two in 4..128.
    max_burst : int
        Beats in the longest burst, a power of two in 2..256, at most 4 KiB.
    max_outstanding : int
        Bursts put up and not yet answered, at least 1.

    Members
    -------
    command : In(stream of ``command_layout()``)
        Beats to write. Commands beyond those under way wait.
    data : In(stream of ``write_layout(bus_bytes)``)
        The beats, the byte of the lowest address least significant, and a bit for each byte that is written.
    abandon : In(1)
        To give up: raise, and hold until ``idle``. While high, commands in progress or offered and beats offered are
        dropped, and no new address is put up; bursts whose address already is are completed with beats that write nothing.
    clear : In(1)
        Clears ``error`` (an error in the same cycle wins).
    error : Out(1)
        Some burst since ``clear`` or reset was answered with BRESP other than OKAY.
    idle : Out(1)
        No command in progress, every burst answered.
    m_axi : Out(Axi4Write(bus_bytes))
    """

    def __init__(self, bus_bytes: int, max_burst: int = 64, max_outstanding: int = 8) -> None:
        check_burst(bus_bytes, max_burst)
        if max_outstanding < 1:
            raise ValueError(f"max_outstanding must be at least 1, not {max_outstanding}")
        self.bus_bytes = bus_bytes
        self.max_burst = max_burst
        self.max_outstanding = max_outstanding
        super().__init__(
            {
                "command": In(stream.Signature(command_layout())),
                "data": In(stream.Signature(write_layout(bus_bytes))),
                "abandon": In(1),
                "clear": In(1),
                "error": Out(1),
                "idle": Out(1),
                "m_axi": Out(Axi4Write(bus_bytes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi = self.m_axi
        m.submodules.splitter = splitter = BurstSplitter(self.bus_bytes, self.max_burst)
        m.submodules.lengths = lengths = SyncFIFO(width=(self.max_burst - 1).bit_length(), depth=self.max_outstanding)
        outstanding = Signal(range(self.max_outstanding + 1))

        # Every entry of `lengths` is an outstanding burst, so there is room for one more whenever an address may go.
        asked = Signal()
        answered = Signal()
        connect(m, self.command, splitter.command)
        m.d.comb += [
            splitter.drop.eq(self.abandon),
            splitter.burst.ready.eq((~axi.awvalid | axi.awready) & (outstanding != self.max_outstanding)),
            asked.eq(splitter.burst.valid & splitter.burst.ready),
            answered.eq(axi.bvalid & axi.bready),
            lengths.w_data.eq(splitter.burst.payload.length),
            lengths.w_en.eq(asked),
            axi.awsize.eq((self.bus_bytes - 1).bit_length()),
            axi.awburst.eq(BURST_INCR),
            axi.awcache.eq(CACHE_NORMAL),
            axi.bready.eq(1),
            self.idle.eq(splitter.idle & (outstanding == 0)),
        ]
        with m.If(asked):
            m.d.sync += [
                axi.awaddr.eq(splitter.burst.payload.address),
                axi.awlen.eq(splitter.burst.payload.length),
                axi.awvalid.eq(1),
            ]
        with m.Elif(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        m.d.sync += outstanding.eq(outstanding + asked - answered)

        position = Signal(range(self.max_burst))  # of the next beat in its burst
        last = Signal()
        room = Signal()
        moved = Signal()
        m.d.comb += [
            last.eq(position == lengths.r_data),
            room.eq(lengths.r_rdy & (~axi.wvalid | axi.wready)),
            moved.eq(room & (self.data.valid | self.abandon)),
            lengths.r_en.eq(moved & last),
            self.data.ready.eq(room | self.abandon),
        ]
        with m.If(moved):
            m.d.sync += [axi.wdata.eq(self.data.payload.data), axi.wlast.eq(last), axi.wvalid.eq(1), position.eq(position + 1)]
            with m.If(self.abandon):
                m.d.sync += axi.wstrb.eq(0)
            with m.Else():
                m.d.sync += axi.wstrb.eq(self.data.payload.strobe)
            with m.If(last):
                m.d.sync += position.eq(0)
        with m.Elif(axi.wready):
            m.d.sync += axi.wvalid.eq(0)

        with m.If(answered & (axi.bresp != Response.OKAY)):
            m.d.sync += self.error.eq(1)
        with m.Elif(self.clear):
            m.d.sync += self.error.eq(0)
        return m
