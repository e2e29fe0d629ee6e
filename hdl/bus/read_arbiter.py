"""Several read managers behind one AXI4 port."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from .axi4 import Axi4Read

__all__ = ["AxiReadArbiter"]

_ADDRESS = ("araddr", "arlen", "arsize", "arburst", "arcache", "arprot")


class AxiReadArbiter(wiring.Component):
    """Gives out the bursts of several managers in turn and hands each the beats it asked for, RRESP with them.

    Of the ports that offer an address the next after the last served is taken. Memory answers in order, so a queue of owners says
    whose the beats are. No output of ``m_axi`` depends on one of its inputs within a cycle, but for what a port makes of them: RREADY
    is the owner's own, and an `AxiReader`'s is a register's output.

    A port that does not take its beats holds up those of all others behind them: what a port waits for before it takes a beat must not
    wait for another port's beats.

    Latency: an address is on ``m_axi`` the cycle after its port's handshake; beats pass within the cycle.
    Throughput: an address a cycle, a beat a cycle, while ``depth`` bursts cover the memory's latency (see `AxiReader`).

    Parameters
    ----------
    bus_bytes : int
        Width of the data bus, a power of two in 4..128.
    ports : int
        At least 1.
    depth : int
        Bursts taken and not yet answered whole, of all ports together, at least 1.

    Members
    -------
    ports : In(Axi4Read(bus_bytes)).array(ports)
        From the managers.
    m_axi : Out(Axi4Read(bus_bytes))
        To memory.
    """

    def __init__(self, bus_bytes: int, ports: int, depth: int = 32) -> None:
        if ports < 1 or depth < 1:
            raise ValueError(f"an arbiter needs at least one port and a depth of 1, not {ports} and {depth}")
        self.bus_bytes, self.number, self.depth = bus_bytes, ports, depth
        super().__init__({"ports": In(Axi4Read(bus_bytes)).array(ports), "m_axi": Out(Axi4Read(bus_bytes))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi = self.m_axi
        m.submodules.owners = owners = SyncFIFO(width=max((self.number - 1).bit_length(), 1), depth=self.depth)
        offers = Signal(self.number)
        after = Signal(self.number)
        turn = Signal(range(self.number))
        room = Signal()
        taken = Signal()
        m.d.comb += [
            offers.eq(Cat(port.arvalid for port in self.ports)),
            room.eq((~axi.arvalid | axi.arready) & owners.w_rdy),
            taken.eq(room & offers.any()),
            owners.w_en.eq(taken),
            owners.w_data.eq(turn),
        ]
        # The first that offers after the last served, else the first of all.
        for candidates in (offers, offers & after):
            for number in reversed(range(self.number)):
                with m.If(candidates[number]):
                    m.d.comb += turn.eq(number)
        with m.If(taken):
            m.d.sync += axi.arvalid.eq(1)
        with m.Elif(axi.arready):
            m.d.sync += axi.arvalid.eq(0)

        for number, port in enumerate(self.ports):
            owns = Signal(name=f"owns{number}")
            m.d.comb += [
                port.arready.eq(room & (turn == number)),
                owns.eq(owners.r_rdy & (owners.r_data == number)),
                port.rvalid.eq(axi.rvalid & owns),
                *(getattr(port, name).eq(getattr(axi, name)) for name in ("rdata", "rresp", "rlast")),
            ]
            with m.If(taken & (turn == number)):
                m.d.sync += [
                    after.eq(-(2 << number) & (1 << self.number) - 1),
                    *(getattr(axi, name).eq(getattr(port, name)) for name in _ADDRESS),
                ]
            with m.If(owns):
                m.d.comb += axi.rready.eq(port.rready)
        m.d.comb += owners.r_en.eq(axi.rvalid & axi.rready & axi.rlast)
        return m
