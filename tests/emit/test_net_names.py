"""Names in generated Verilog are those of the source, also where Amaranth would put a number."""

import re

import pytest
from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_verilog

PAIR = data.StructLayout({"low": 4, "high": 8})


class Inner(wiring.Component):
    """Takes a structure, and signals that nothing hands it through its ports."""

    def __init__(self, beyond=()):
        self.beyond = beyond
        super().__init__({"i": In(PAIR), "start": In(1), "o": Out(8), "count": Out(8)})

    def elaborate(self, platform):
        m = Module()
        half = Signal(8)
        twice = Signal(8)
        start = Signal(4)
        m.d.sync += [half.eq(self.i.high + 1), twice.eq(half ^ Cat(*self.beyond)), start.eq(start + self.start)]
        m.d.comb += [self.o.eq(twice + start), self.count.eq(start)]
        return m


class Outer(wiring.Component):
    """Two modules that use the name `start` for their own, and signals of this one."""

    i: In(16)
    start: In(1)
    o: Out(16)

    def elaborate(self, platform):
        m = Module()
        wide = Signal(16)
        first = Signal(3)
        second = Signal(5)
        m.d.sync += wide.eq(wide + self.i)
        m.d.comb += Cat(first, second).eq(wide + 1)
        m.submodules.a = a = Inner([wide[2:6], first, second])
        m.submodules.b = b = Inner([wide[4:8]])
        m.d.comb += [a.i.eq(wide), b.i.eq(Cat(a.o, a.count)), a.start.eq(self.start), b.start.eq(a.o[0]), self.o.eq(b.o + b.count)]
        return m


@pytest.fixture(scope="module")
def verilog():
    return emit_verilog(Outer(), "top")


def module(verilog, name):
    return re.search(rf"^module {name}\((.*?)\);(.*?)^endmodule", verilog, re.M | re.S)


def test_no_number_of_a_netlist(verilog):
    declared = re.findall(r"^  (?:input|output|wire|reg)\b[^;]*?\b(\w+)(?: = [^;]*)?;", verilog, re.M)
    assert len(declared) > 30
    assert not [name for name in declared if re.search(r"port_?\d|signal", name)]


def test_own_ports_come_before_others_of_one_name(verilog):
    inner = module(verilog, "top__a")
    assert "input start;" in inner[2] and "reg [3:0] start_2 = " in inner[2]


def test_nets_of_a_submodule_carry_its_name(verilog):
    outer = module(verilog, "top")[2]
    assert ".o(a__o)" in outer and ".o(b__o)" in outer and "wire [7:0] a__o;" in outer


def test_part_of_a_signal_is_named_after_it(verilog):
    """Port `i` of `b` comes from two drivers; `a` takes two signals that one adder drives."""
    assert {"i_7_0", "i_11_8", "wide"} <= set(module(verilog, "top__b")[1].split(", "))
    assert {"first", "second", "wide"} <= set(module(verilog, "top__a")[1].split(", "))
