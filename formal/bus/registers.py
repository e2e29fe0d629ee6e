"""The AXI4-Lite registers answer every request once, with the right response, and change only by good writes."""

from typing import Any

from amaranth import Const, Module, Mux, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.bus.axi4 import AxiLite, Response
from nibblecore.hdl.bus.register_map import Access, Register, RegisterMap
from nibblecore.hdl.bus.registers import AxiLiteRegisters

from .channel import assert_holds

__all__ = ["PROOFS"]

SMALL = RegisterMap(
    "Small",
    (
        Register("INPUT", 0x0, Access.R),
        Register("VALUE", 0x4, Access.RW),
        Register("ACTION", 0x8, Access.W),
        Register("EVENTS", 0xC, Access.RW1C),
    ),
)


class RegistersSpec(wiring.Component):
    """Follows one write and one read at a time beside a map with one register of each access."""

    def __init__(self, block: type[AxiLiteRegisters] = AxiLiteRegisters) -> None:
        self.block = block
        super().__init__({"s_axi": In(AxiLite(5)), "input": In(32), "events_set": In(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.registers = registers = self.block(SMALL, 5)
        ports: Any = registers
        host, axi = self.s_axi, ports.s_axi
        for name, member in AxiLite(5).members.items():
            source, target = (host, axi) if member.flow is not In else (axi, host)
            m.d.comb += getattr(target, name).eq(getattr(source, name))
        m.d.comb += [ports.input.eq(self.input), ports.events_set.eq(self.events_set)]

        # The write in hand: what has been taken and not yet answered.
        has_address, has_data = Signal(), Signal()
        address, word, strobe = Signal(5), Signal(32), Signal(4)
        both_before = Signal()
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [has_address.eq(1), address.eq(axi.awaddr)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [has_data.eq(1), word.eq(axi.wdata), strobe.eq(axi.wstrb)]
        with m.If(axi.bvalid & axi.bready):
            m.d.sync += [has_address.eq(0), has_data.eq(0)]
        m.d.sync += both_before.eq(has_address & has_data & ~(axi.bvalid & axi.bready))

        good, acted = Signal(), Signal()  # `acted`: the write took effect in an earlier cycle
        m.d.comb += good.eq((strobe == 15) & ((address == 4) | (address == 8) | (address == 12)))
        m.d.sync += acted.eq(axi.bvalid & ~axi.bready)
        acts = Signal()
        m.d.comb += acts.eq(axi.bvalid & ~acted & good)

        # The registers themselves.
        value, action, events, hit = Signal(32), Signal(32), Signal(32), Signal(32)
        m.d.sync += [value.eq(ports.value), action.eq(ports.action), events.eq(ports.events), hit.eq(self.events_set)]
        started = Signal()  # a cycle has passed since power-up or reset
        m.d.sync += started.eq(1)

        # The read in hand.
        reading, read_address, expected = Signal(), Signal(5), Signal(32)
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [reading.eq(1), read_address.eq(axi.araddr), expected.eq(0)]
            with m.Switch(axi.araddr):
                for offset, source in ((0, self.input), (4, ports.value), (12, ports.events)):
                    with m.Case(offset):
                        m.d.sync += expected.eq(source)
        with m.Elif(axi.rvalid & axi.rready):
            m.d.sync += reading.eq(0)
        readable = (read_address == 0) | (read_address == 4) | (read_address == 12)

        assert_holds(m, "b", axi.bvalid, axi.bready, axi.bresp)
        assert_holds(m, "r", axi.rvalid, axi.rready, axi.rresp, axi.rdata)
        m.d.comb += [
            # One at a time, each answered in its fixed time.
            Assert(~(has_address & axi.awready)),
            Assert(~(has_data & axi.wready)),
            Assert(axi.bvalid == both_before),
            Assert(axi.rvalid == reading),
            Assert(~(reading & axi.arready)),
            Assert(Mux(axi.bvalid, axi.bresp == Mux(good, Response.OKAY, Response.SLVERR), 1)),
            Assert(Mux(axi.rvalid, axi.rresp == Mux(readable, Response.OKAY, Response.SLVERR), 1)),
            Assert(Mux(axi.rvalid, axi.rdata == expected, 1)),
            # Effects.
            Assert(ports.action_strobe == (acts & (address == 8))),
            Assert(ports.value == Mux(started, Mux(acts & (address == 4), word, value), 0)),
            Assert(ports.action == Mux(started, Mux(acts & (address == 8), word, action), 0)),
            Assert(ports.events == Mux(started, (events & ~Mux(acts & (address == 12), word, Const(0, 32))) | hit, 0)),
            Cover(acts & (address == 12) & (events == 0xF0) & (word == 0x30) & (hit == 1)),
            Cover(axi.bvalid & ~good & axi.rvalid & (axi.rdata == 5) & (read_address == 4)),
        ]
        return m


class CarelessRegisters(AxiLiteRegisters):
    """Loses the events of a cycle in which data of a write arrive."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        ports: Any = self
        with m.If(ports.s_axi.awready & ports.s_axi.wvalid):
            m.d.sync += ports.events.eq(ports.events)
        return m


PROOFS = [
    Proof(
        name="bus.registers.answers",
        spec=RegistersSpec,
        fault=lambda: RegistersSpec(CarelessRegisters),
        reason="one register of each access; the registers of the specification mirror the block's",
    )
]
