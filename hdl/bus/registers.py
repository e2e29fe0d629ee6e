"""A register map as an AXI4-Lite peripheral."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .axi4 import AxiLite, Response
from .register_map import Access, Register, RegisterMap

__all__ = ["AxiLiteRegisters", "register_layout"]


def register_layout(register: Register) -> Any:
    """Shape of the register's ports: a layout of its fields over 32 bits, or plain 32 bits if it has none."""
    if not register.fields:
        return 32
    return data.FlexibleLayout(32, {field.name: data.Field(field.width, field.low) for field in register.fields})


class AxiLiteRegisters(wiring.Component):
    """AXI4-Lite subordinate that holds the registers of a `RegisterMap`.

    Address and data of a write may come in either order. One write and one read are in hand at a time, independent of each
    other. Answered SLVERR, without effect: addresses that hold no register (unaligned ones among them), writes that do not
    strobe all four bytes, writes to R and reads of W registers. Data read with an error are 0. No output of ``s_axi`` depends on
    one of its inputs within a cycle.

    Latency: RVALID one cycle after the address was taken; BVALID two cycles after the later of address and data; a write takes
    effect in the first cycle of its BVALID. Throughput: one read in 2 cycles, one write in 3.

    Parameters
    ----------
    register_map : RegisterMap
    address_bits : int, optional
        Width of the addresses; as many as reach every register if not given. ValueError if fewer.

    Members
    -------
    s_axi : In(AxiLite(address_bits))
    <name> : In(``register_layout``)
        Of an R register: what the host reads, as it is when the address is taken.
    <name> : Out(``register_layout``)
        Of an RW or RW1C register: its value. Of a W register: what was written last.
    <name>_strobe : Out(1)
        Of a W register: high for one cycle, the first in which the value is the one just written.
    <name>_set : In(``register_layout``)
        Of an RW1C register: bits to set (setting wins over clearing in the same cycle).
    """

    def __init__(self, register_map: RegisterMap, address_bits: int | None = None) -> None:
        if address_bits is None:
            address_bits = register_map.address_bits
        if address_bits < register_map.address_bits:
            raise ValueError(f"{address_bits} address bits do not reach every register of {register_map.name}")
        self.register_map = register_map
        members: dict[str, Any] = {"s_axi": In(AxiLite(address_bits))}
        for register in register_map:
            name, layout = register.name.lower(), register_layout(register)
            ports: dict[str, Any] = {name: In(layout) if register.access is Access.R else Out(layout)}
            if register.access is Access.RW:
                ports[name] = Out(layout, init=_init(register))
            elif register.access is Access.W:
                ports[f"{name}_strobe"] = Out(1)
            elif register.access is Access.RW1C:
                ports[name] = Out(layout, init=_init(register))
                ports[f"{name}_set"] = In(layout)
            if ports.keys() & members.keys():
                raise ValueError(f"{register_map.name}: ports of {register.name} clash with another register's")
            members |= ports
        super().__init__(members)

    def _bits(self, port: str) -> Any:
        """A register's port as a plain value."""
        port_value = getattr(self, port)
        return port_value.as_value() if isinstance(port_value, data.View) else port_value

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi = self.s_axi

        have_address = Signal()
        have_data = Signal()
        address = Signal.like(axi.awaddr)
        word = Signal(32)
        full = Signal()  # all bytes strobed
        m.d.comb += [axi.awready.eq(~have_address & ~axi.bvalid), axi.wready.eq(~have_data & ~axi.bvalid)]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [address.eq(axi.awaddr), have_address.eq(1)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [word.eq(axi.wdata), full.eq(axi.wstrb.all()), have_data.eq(1)]

        write = Signal()
        writable = Signal()
        m.d.comb += write.eq(have_address & have_data)
        with m.If(write):
            m.d.sync += [have_address.eq(0), have_data.eq(0), axi.bvalid.eq(1)]
            m.d.sync += axi.bresp.eq(Mux(writable & full, Response.OKAY, Response.SLVERR))
        with m.Elif(axi.bready):
            m.d.sync += axi.bvalid.eq(0)

        for register in self.register_map:
            name = register.name.lower()
            if not register.access.writable:
                continue
            written = Signal(name=f"{name}_written")
            with m.If(address == register.offset):
                m.d.comb += [writable.eq(1), written.eq(write & full)]
            value = self._bits(name)
            if register.access is Access.RW1C:
                cleared = Signal(32, name=f"{name}_cleared")
                m.d.comb += cleared.eq(Mux(written, word, 0))
                m.d.sync += value.eq(((value & ~cleared) | self._bits(f"{name}_set")) & register.mask)
            else:
                with m.If(written):
                    m.d.sync += value.eq(word & register.mask)
            if register.access is Access.W:
                m.d.sync += getattr(self, f"{name}_strobe").eq(written)

        m.d.comb += axi.arready.eq(~axi.rvalid)
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [axi.rvalid.eq(1), axi.rdata.eq(0), axi.rresp.eq(Response.SLVERR)]
            with m.Switch(axi.araddr):
                for register in self.register_map:
                    if register.access.readable:
                        with m.Case(register.offset):
                            m.d.sync += [axi.rdata.eq(self._bits(register.name.lower())), axi.rresp.eq(Response.OKAY)]
        with m.Elif(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        return m


def _init(register: Register) -> Any:
    return {field.name: field.reset for field in register.fields} if register.fields else 0
