"""Faults in Verilog: which there are, and that a text with many of them behaves as the one that is chosen."""

import re
import subprocess
from collections import Counter

import pytest
from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.formal.seeded import refutes
from nibblecore.hdl.arith.nibble_mac import NibbleMac
from nibblecore.hdl.emit.emit import emit_verilog
from nibblecore.hdl.memory import Memory
from nibblecore.sim import verilator
from nibblecore.sim.faults.equivalence import equivalent
from nibblecore.sim.faults.seeding import KINDS, Fault, Text, drawn, mutated, schemata

VERILOG = """\
(* src = "/x/tests/wrapper.py:3" *)
module top(clk, rst, a, b, go, o, p);
  input clk;
  wire clk;
  input rst;
  wire rst;
  input [7:0] a;
  wire [7:0] a;
  input [7:0] b;
  wire [7:0] b;
  input go;
  wire go;
  output [8:0] o;
  wire [8:0] o;
  output [3:0] p;
  wire [3:0] p;
  wire _0_;
  wire _1_;
  wire [8:0] _2_;
  wire [3:0] unread;
  (* src = "/x/hdl/arith/unit.py:7" *)
  reg [3:0] count = 4'h0;
  assign _2_ = a + (* src = "/x/hdl/arith/unit.py:9" *) b;
  assign _0_ = count < (* src = "/x/hdl/arith/unit.py:10" *) 4'hb;
  assign o = _0_ ? (* src = "/x/hdl/arith/unit.py:10" *) _2_ : { 1'h0, a };
  assign unread = a[3:0] & (* src = "/x/hdl/arith/unit.py:11" *) b[3:0];
  assign p = a[4:1] ^ (* src = "/x/tests/wrapper.py:12" *) b[3:0];
  (* src = "/x/hdl/arith/unit.py:7" *)
  always @(posedge clk)
    if (rst) count <= 4'h0;
    else if (go) count <= a[3:0];
endmodule
"""


@pytest.fixture(scope="module")
def text():
    return Text(VERILOG)


def of_line(text, start):
    return {(fault.kind, fault.what) for fault in text.faults() if fault.line.startswith(start)}


def test_a_line_has_the_faults_of_its_operation(text):
    assert of_line(text, "assign _2_") == {
        ("operator", "- for +"),
        ("operand", "a alone"),
        ("operand", "b alone"),
        *(("bit", f"bit {place} inverted") for place in (0, 4, 8)),
    }
    assert of_line(text, "assign _0_") == {
        ("edge", "<= for <"),
        ("constant", "4'hc for 4'hb"),
        ("constant", "4'ha for 4'hb"),
        ("bit", "bit 0 inverted"),
    }
    assert {what for kind, what in of_line(text, "assign o") if kind == "condition"} == {
        "arms exchanged",
        "always _2_",
        "always { 1'h0, a }",
    }
    assert of_line(text, "if (rst)") == {("reset", "4'h1 for 4'h0"), ("reset", "4'hf for 4'h0")}
    assert of_line(text, "else if (go)") == {("enable", "1'h1 for go"), ("enable", "1'h0 for go"), ("slice", "a[4:1] for a[3:0]")}


def test_no_fault_where_nothing_reads_or_where_it_is_not_hardware(text):
    assert not of_line(text, "assign unread") and not of_line(text, "assign p")
    assert {fault.source.partition(":")[0] for fault in text.faults()} == {"hdl/arith/unit.py"}
    assert {fault.block for fault in text.faults()} == {"arith/unit"}


def test_every_fault_changes_its_line_alone(text):
    whole = "\n".join(text.lines).split("\n")
    for fault in text.faults():
        lines = mutated(text, fault).rstrip().split("\n")
        different = [line for line in whole if line not in lines]
        assert [line.strip() for line in different] == [fault.line], fault


def test_the_draw_is_even_over_kinds_and_repeatable(text):
    faults = [*text.faults()]
    kinds = Counter(fault.kind for fault in faults)
    chosen = drawn(faults, len(kinds), 1)
    assert chosen == drawn(faults, len(kinds), 1) != drawn(faults, len(kinds), 2)
    assert Counter(fault.kind for fault in chosen) == dict.fromkeys(kinds, 1) and kinds.keys() < KINDS.keys()
    assert sorted(drawn(faults, 1000, 1), key=repr) == sorted(faults, key=repr)


def test_a_key_outlives_other_numbers(text):
    other = Text(VERILOG.replace("_2_", "_7_"))
    assert [fault.key for fault in text.faults()] == [fault.key for fault in other.faults()]
    assert len({fault.key for fault in text.faults()}) == len([*text.faults()])


STEPS = [(i * 37 % 256, i * 101 % 256, i % 3 == 0) for i in range(200)]
MAIN = """\
#include "Vtop.h"
#include <cstdio>
int main() {
    VerilatedContext context;
    Vtop top(&context);
    top.rst = 0;
    for (int i = 0; i < 200 && !context.gotFinish(); ++i) {
        top.clk = 0, top.a = i * 37, top.b = i * 101, top.go = i % 3 == 0, top.eval();
        top.clk = 1, top.eval();
        std::printf("%d\\n", top.o);
    }
}
"""


def behaviour(total=lambda a, b: a + b, less=lambda count: count < 11, go=lambda go: go):
    """What comes out of `VERILOG` at `STEPS`, with another sum, comparison or enable."""
    count = 0
    for a, b, goes in STEPS:
        count = a % 16 if go(goes) else count
        yield total(a, b) % 512 if less(count) else a


def test_one_build_holds_them_all(text, tmp_path):
    """The fault of the chosen number holds, and no other."""
    faults = dict(enumerate(text.faults(), 1))
    (tmp_path / "top.v").write_text(schemata(text, faults, "top"))
    (tmp_path / "main.cpp").write_text(MAIN)
    options = ["--cc", "--exe", "--build", "--top-module", "top", "-Wno-fatal", "-Wno-lint", "-CFLAGS", "-O0"]
    environment = verilator.environment() | {"OBJCACHE": verilator.launcher()}
    command = [verilator.executable(), *options, "top.v", "main.cpp"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

    def outputs(**environment):
        run = subprocess.run([tmp_path / "obj_dir" / "Vtop"], env=environment, check=True, capture_output=True, text=True)
        return [int(line) for line in run.stdout.splitlines() if line.isdigit()]

    # Of two lines with the same fault the first.
    numbers = {(fault.kind, fault.what): str(number) for number, fault in reversed(faults.items())}
    assert outputs() == outputs(MUTANT="0") == [*behaviour()]
    for fault, expected in {
        ("operator", "- for +"): behaviour(total=lambda a, b: a - b),
        ("operand", "b alone"): behaviour(total=lambda a, b: b),
        ("bit", "bit 4 inverted"): behaviour(total=lambda a, b: a + b ^ 16),
        ("edge", "<= for <"): behaviour(less=lambda count: count <= 11),
        ("constant", "4'ha for 4'hb"): behaviour(less=lambda count: count < 10),
        ("enable", "1'h1 for go"): behaviour(go=lambda go: True),
        ("enable", "1'h0 for go"): behaviour(go=lambda go: False),
    }.items():
        assert outputs(MUTANT=numbers[fault]) == [*expected] != [*behaviour()], fault
    assert outputs(MUTANT_CYCLES="50") == [*behaviour()][:51]


def test_real_verilog_keeps_its_sources():
    plain, sourced = emit_verilog(NibbleMac(), "mac"), emit_verilog(NibbleMac(), "mac", sources=True)
    text = Text(sourced)
    assert [line.rstrip() for line in text.lines] == [line.rstrip() for line in plain.splitlines()]
    assert {fault.block for fault in text.faults()} == {"arith/nibble_mac"}
    assert all(re.fullmatch(r"hdl/arith/nibble_mac\.py:\d+", fault.source) for fault in text.faults())


class Half(wiring.Component):
    """Adds, and lets the lowest bit go."""

    def __init__(self):
        super().__init__({"a": In(4), "b": In(4), "o": Out(4)})

    def elaborate(self, platform):
        m = Module()
        total = Signal(5)
        m.d.comb += [total.eq(self.a + self.b), self.o.eq(total[1:])]
        return m


def test_what_changes_nothing_is_proved_to():
    verilog = re.sub(r'src = "[^"]*"', 'src = "hdl/half.py:1"', emit_verilog(Half(), "half", sources=True))
    text = Text(verilog)
    inverted = {fault.what: fault for fault in text.faults() if fault.kind == "bit"}
    assert equivalent(text, inverted["bit 0 inverted"], "half")
    assert not equivalent(text, inverted["bit 4 inverted"], "half")


class Stage(wiring.Component):
    """A register between two streams."""

    def __init__(self):
        super().__init__({"i": In(stream.Signature(4)), "o": Out(stream.Signature(4))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


def test_a_payload_counts_while_its_stream_is_valid():
    text = Text(re.sub(r'src = "[^"]*"', 'src = "hdl/stage.py:1"', emit_verilog(Stage(), "stage", sources=True)))
    assert text.ports("stage")["o__payload"] == ("output", 4)

    def with_fault(statement, after):
        number = next(number for number, line in enumerate(text.lines) if statement in line)
        end = text.lines[number].index(statement) + len(statement)
        return Fault(
            "",
            "",
            "stage",
            "hdl/stage.py:1",
            text.lines[number].strip(),
            number,
            text.lines[number].rindex(" ", 0, end) + 1,
            end,
            after,
            0,
        )

    assert equivalent(text, with_fault("o__payload <= 4'h0", "4'h5"), "stage")
    assert not equivalent(text, with_fault("o__valid <= 1'h0", "1'h1"), "stage")
    assert not equivalent(text, with_fault("o__payload <= i__payload", "4'h5"), "stage")


def test_a_proof_finds_a_fault_in_the_verilog_of_its_block(tmp_path):
    from nibblecore.formal.bus.burst_splitter import PROOFS
    from nibblecore.hdl.bus.burst_splitter import BurstSplitter

    proof = PROOFS[0]
    faults = [*Text(emit_verilog(BurstSplitter(8, 16), "splitter", sources=True)).faults()]
    fault = next(fault for fault in faults if fault.kind == "operator" and "to_boundary +" in fault.line)
    assert refutes(proof, fault, tmp_path)


def test_a_proof_that_puts_anything_into_its_block_is_left_out(tmp_path):
    from nibblecore.formal.ltoaq.command.controller import PROOFS
    from nibblecore.hdl.config import TINY
    from nibblecore.hdl.ltoaq.command.controller import Controller

    faults = Text(emit_verilog(Controller(TINY, 4), "controller", sources=True)).faults()
    fault = next(fault for fault in faults if fault.block == "ltoaq/command/controller")
    assert not any(refutes(proof, fault, tmp_path) for proof in PROOFS)


class Kept(wiring.Component):
    """A memory's word, which nothing has set before it was written."""

    def __init__(self):
        super().__init__({"write": In(1), "read": In(1), "i": In(4), "o": Out(4)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(4, 4)
        place = Signal(2)
        wide = Signal(3)
        m.d.comb += wide.eq(place + self.write)
        m.d.sync += place.eq(wide - self.read)
        m.d.comb += [
            memory.read_enable.eq(1),
            memory.read_address.eq(self.i),
            memory.write_enable.eq(self.write),
            memory.write_address.eq(place),
            memory.write_data.eq(self.i),
            self.o.eq(memory.read_data),
        ]
        return m


def test_what_nothing_has_written_is_the_same_with_and_without_the_fault():
    text = Text(re.sub(r'src = "[^"]*"', 'src = "hdl/kept.py:1"', emit_verilog(Kept(), "kept", sources=True)))
    inverted = {fault.what: fault for fault in text.faults() if fault.kind == "bit" and "wide = " in fault.line}
    assert equivalent(text, inverted["bit 2 inverted"], "kept")
    assert not equivalent(text, inverted["bit 1 inverted"], "kept")
