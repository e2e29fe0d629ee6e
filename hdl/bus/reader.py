"""Read DMA: commands in, beats out."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .axi4 import BURST_INCR, CACHE_NORMAL, Axi4Read, Response
from .burst_splitter import BurstSplitter, check_burst
from .streams import command_layout, connect

__all__ = ["AxiReader"]


class AxiReader(wiring.Component):
    """Fetches runs of beats over AXI4, several bursts ahead, and delivers them in the order of the commands.

    Commands are split by `BurstSplitter`. A beat that the bus answers with an error is delivered like any other and
    raises ``error``. No output of ``m_axi`` depends on one of its inputs within a cycle.

    Latency: ARVALID two cycles after the command is taken (if no earlier burst is waiting); ``data`` one cycle after RVALID.
    Throughput: one beat a cycle, across bursts and commands, while the bursts outstanding cover the memory's latency L, from
    an address to its first beat: (``max_outstanding`` − 1) · (beats a burst) ≥ L + 1.

    Parameters
    ----------
    bus_bytes : int
        Width of the data bus, a power of two in 4..128.
    max_burst : int
        Beats in the longest burst, a power of two in 2..256, at most 4 KiB.
    max_outstanding : int
        Bursts asked for and not yet returned, at least 1.

    Members
    -------
    command : In(stream of ``command_layout()``)
        Beats to fetch. Commands beyond those under way wait.
    data : Out(stream of ``8·bus_bytes`` bits)
        The beats, the byte of the lowest address least significant.
    abandon : In(1)
        To give up: raise, and hold until ``idle``. While high, commands in progress or offered are dropped, no new burst
        is asked for and what still arrives is swallowed; ``data`` falls silent at once, a beat on offer included.
    clear : In(1)
        Clears ``error`` (an error in the same cycle wins).
    error : Out(1)
        Some beat since ``clear`` or reset had RRESP other than OKAY.
    idle : Out(1)
        No command in progress, nothing outstanding, every beat delivered.
    m_axi : Out(Axi4Read(bus_bytes))
    """

    def __init__(self, bus_bytes: int, max_burst: int = 64, max_outstanding: int = 16) -> None:
        check_burst(bus_bytes, max_burst)
        if max_outstanding < 1:
            raise ValueError(f"max_outstanding must be at least 1, not {max_outstanding}")
        self.bus_bytes = bus_bytes
        self.max_burst = max_burst
        self.max_outstanding = max_outstanding
        super().__init__(
            {
                "command": In(stream.Signature(command_layout())),
                "data": Out(stream.Signature(8 * bus_bytes)),
                "abandon": In(1),
                "clear": In(1),
                "error": Out(1),
                "idle": Out(1),
                "m_axi": Out(Axi4Read(bus_bytes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi = self.m_axi
        m.submodules.splitter = splitter = BurstSplitter(self.bus_bytes, self.max_burst)
        outstanding = Signal(range(self.max_outstanding + 1))
        back = Signal(8 * self.bus_bytes)
        back_valid = Signal()
        front_valid = Signal()

        connect(m, self.command, splitter.command)
        m.d.comb += [
            splitter.drop.eq(self.abandon),
            splitter.burst.ready.eq((~axi.arvalid | axi.arready) & (outstanding != self.max_outstanding)),
            axi.arsize.eq((self.bus_bytes - 1).bit_length()),
            axi.arburst.eq(BURST_INCR),
            axi.arcache.eq(CACHE_NORMAL),
            axi.rready.eq(~back_valid),
            self.data.valid.eq(front_valid & ~self.abandon),
            self.idle.eq(splitter.idle & (outstanding == 0) & ~front_valid),
        ]

        asked = Signal()
        arrived = Signal()
        m.d.comb += [asked.eq(splitter.burst.valid & splitter.burst.ready), arrived.eq(axi.rvalid & axi.rready)]
        with m.If(asked):
            m.d.sync += [
                axi.araddr.eq(splitter.burst.payload.address),
                axi.arlen.eq(splitter.burst.payload.length),
                axi.arvalid.eq(1),
            ]
        with m.Elif(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        m.d.sync += outstanding.eq(outstanding + asked - (arrived & axi.rlast))

        # Two places for beats, so that RREADY is a register's output and still admits a beat every cycle.
        with m.If(self.data.ready | ~front_valid):
            m.d.sync += [front_valid.eq(back_valid | arrived), back_valid.eq(0)]
            with m.If(back_valid):
                m.d.sync += self.data.payload.eq(back)
            with m.Else():
                m.d.sync += self.data.payload.eq(axi.rdata)
        with m.Elif(arrived):
            m.d.sync += [back.eq(axi.rdata), back_valid.eq(1)]
        with m.If(self.abandon):
            m.d.sync += [front_valid.eq(0), back_valid.eq(0)]

        with m.If(arrived & (axi.rresp != Response.OKAY)):
            m.d.sync += self.error.eq(1)
        with m.Elif(self.clear):
            m.d.sync += self.error.eq(0)
        return m
