"""A small machine with the accelerator's ports, to test the simulation with."""

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.axi4 import BURST_INCR, Axi4, AxiLite

SOURCE, TARGET, BEATS, START, STATUS, FAULT = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14


class Copier(wiring.Component):
    """Copies `BEATS` (1..255) beats from `SOURCE` to `TARGET` when `START` is written, as one burst each, through one register.

    `STATUS`: [0] done, which is the interrupt too; reading clears it; [3:2] the first read response that was not OKAY, [5:4] the
    write response. `FAULT` breaks a rule of AXI4 on purpose: 1 ``wlast`` never, 2 ``awaddr`` not held, 3 bursts of another size,
    4 ``arvalid`` withdrawn, 5 no answer to register reads.
    """

    def __init__(self, bus_bytes: int) -> None:
        self.bus_bytes = bus_bytes
        super().__init__({"s_axi": In(AxiLite(6)), "m_axi": Out(Axi4(bus_bytes)), "irq": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        s, b = self.s_axi, self.m_axi
        source, target, beats, fault = Signal(32), Signal(32), Signal(8), Signal(3)
        done, read_response, write_response, start = Signal(), Signal(2), Signal(2), Signal()
        m.d.comb += self.irq.eq(done)

        write = Signal()
        m.d.comb += [
            write.eq(s.awvalid & s.wvalid & ~s.bvalid),
            s.awready.eq(write),
            s.wready.eq(write),
            s.arready.eq(s.arvalid & ~s.rvalid & (fault != 5)),
        ]
        with m.If(s.bready):
            m.d.sync += s.bvalid.eq(0)
        with m.If(write):
            m.d.sync += [s.bvalid.eq(1), s.bresp.eq(0)]
            with m.Switch(s.awaddr):
                for offset, register in ((SOURCE, source), (TARGET, target), (BEATS, beats), (FAULT, fault)):
                    with m.Case(offset):
                        m.d.sync += register.eq(s.wdata)
                with m.Case(START):
                    m.d.comb += start.eq(1)
                with m.Default():
                    m.d.sync += s.bresp.eq(2)
        with m.If(s.rready):
            m.d.sync += s.rvalid.eq(0)
        with m.If(s.arready):
            m.d.sync += [s.rvalid.eq(1), s.rresp.eq(0), s.rdata.eq(0)]
            with m.Switch(s.araddr):
                with m.Case(SOURCE):
                    m.d.sync += s.rdata.eq(source)
                with m.Case(STATUS):
                    m.d.sync += [s.rdata.eq(done | read_response << 2 | write_response << 4), done.eq(0)]
                with m.Default():
                    m.d.sync += s.rresp.eq(2)

        size = self.bus_bytes.bit_length() - 1
        left, full, flip = Signal(8), Signal(), Signal()
        m.d.sync += flip.eq(~flip)
        m.d.comb += [
            b.araddr.eq(source),
            b.arlen.eq(beats - 1),
            b.arsize.eq(size),
            b.arburst.eq(BURST_INCR),
            b.awaddr.eq(target + ((fault == 2) & flip) * self.bus_bytes),
            b.awlen.eq(beats - 1),
            b.awburst.eq(BURST_INCR),
            b.awsize.eq(size - (fault == 3)),
            b.wstrb.eq(-1),
            b.wlast.eq((left == 1) & (fault != 1)),
            b.wvalid.eq(full),
            b.rready.eq(~full | b.wready),
            b.bready.eq(1),
        ]
        with m.If(start):
            m.d.sync += [left.eq(beats), b.arvalid.eq(1), b.awvalid.eq(1), read_response.eq(0)]
        with m.If(b.arvalid & (b.arready | (fault == 4))):
            m.d.sync += b.arvalid.eq(0)
        with m.If(b.awvalid & b.awready):
            m.d.sync += b.awvalid.eq(0)
        with m.If(b.wvalid & b.wready):
            m.d.sync += [left.eq(left - 1), full.eq(0)]
        with m.If(b.rvalid & b.rready):
            m.d.sync += [b.wdata.eq(b.rdata), full.eq(1)]
            with m.If(read_response == 0):
                m.d.sync += read_response.eq(b.rresp)
        with m.If(b.bvalid):
            m.d.sync += [done.eq(1), write_response.eq(b.bresp)]
        return m
