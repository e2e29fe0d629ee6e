"""Verilog with shared modules equals Verilog without, and what cannot be shared is turned down."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyosys
import pytest
from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.update.ndp_rows import NdpRows
from nibblecore.hdl.config import PAPER, TINY, DramConfig
from nibblecore.hdl.emit import emit
from nibblecore.hdl.emit.emit import emit_once, emit_verilog
from nibblecore.hdl.ltoaq.array.wide_array import WideArray
from nibblecore.hdl.ltoaq.fused.fused_array import FusedArray
from nibblecore.hdl.memory import Memory
from nibblecore.sim import verilog as verilog_and_sidecar
from nibblecore.sim.verilog import LintError, lint

_YOSYS = "import sys; from pyosys import libyosys as ys; d = ys.Design(); [ys.Pass.call(d, f'tee -q {c}') for c in sys.argv[1:]]"


def equivalent(folder, gold, gate):
    """Whether two Verilog texts with a top module ``top`` have equal outputs for ever, from power-up and under any inputs.

    Yosys joins them to a miter; ABC merges the signals that always agree (``lcorr``, ``scorr``, by induction); the miter
    must vanish, and bounded model checking must not refute what is left.
    """
    (folder / "gold.v").write_text(gold)
    (folder / "gate.v").write_text(gate)
    commands = []
    for side in ("gold", "gate"):
        commands += [
            f"read_verilog {folder / side}.v",
            "hierarchy -check -top top",
            "flatten",
            "proc",
            "memory",
            f"rename top {side}",
            f"design -stash {side}",
        ]
    commands += [f"design -copy-from {side} {side}" for side in ("gold", "gate")]
    commands += [
        "miter -equiv -flatten gold gate miter",
        "hierarchy -top miter",
        "opt_clean",
        "techmap",
        "dffunmap",
        "setundef -zero",
        "aigmap",
        f"write_aiger -zinit {folder}/miter.aig",
    ]
    subprocess.run([sys.executable, "-c", _YOSYS, *commands], check=True, timeout=300)
    abc = Path(pyosys.__file__).with_name("yosys-abc")
    script = f"read_aiger {folder}/miter.aig; strash; lcorr; scorr; print_stats; bmc3 -F 50"
    output = subprocess.run([abc, "-c", script], capture_output=True, text=True, check=True, timeout=300).stdout
    proved, refuted = re.search(r"lat = +0 +and = +0 ", output) is not None, "was asserted in frame" in output
    assert refuted or proved, f"ABC could not tell:\n{output}"
    return not refuted


@emit_once
class Counter(wiring.Component):
    """Adds `step` to a sum at each `enable`."""

    def __init__(self, width, step, *, name="counter_{width}_{step}"):
        self.width, self.step, self.pattern = width, step, name
        super().__init__({"enable": In(1), "sum": Out(width)})

    @property
    def module_name(self):
        return self.pattern.format(width=self.width, step=self.step)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.enable):
            m.d.sync += self.sum.eq(self.sum + self.step)
        return m


@emit_once
class Pair(wiring.Component):
    """Two counters in a shared module of their own: sharing nests."""

    def __init__(self, counter):
        self.counter = counter
        super().__init__({"enable": In(1), "total": Out(8)})

    @property
    def module_name(self):
        return "pair"

    def elaborate(self, platform):
        m = Module()
        m.submodules.first = first = self.counter(8, 1)
        m.submodules.second = second = self.counter(8, 3)
        m.d.comb += [first.enable.eq(self.enable), second.enable.eq(first.sum[0]), self.total.eq(first.sum ^ second.sum)]
        return m


class Chain(wiring.Component):
    """Four pairs in a row."""

    def __init__(self, counter=Counter):
        self.counter = counter
        super().__init__({"enable": In(1), "total": Out(8)})

    def elaborate(self, platform):
        m = Module()
        enable = self.enable
        for number in range(4):
            m.submodules[f"pair{number}"] = pair = Pair(self.counter)
            m.d.comb += pair.enable.eq(enable)
            enable = Signal(name=f"enable{number}")
            m.d.comb += enable.eq(pair.total[number])
        m.d.comb += self.total.eq(pair.total)
        return m


def modules(verilog):
    return re.findall(r"^module (\w+)", verilog, re.M)


def test_each_module_once():
    assert sorted(modules(emit_verilog(Chain(), "top"))) == ["counter_8_1", "counter_8_3", "pair", "top"]
    assert len(modules(emit_verilog(Chain(), "top", share=False))) == 1 + 4 + 8


def test_equal_designs_give_equal_text():
    assert emit_verilog(Chain(), "top") == emit_verilog(Chain(), "top")


def test_names_are_plain():
    verilog = emit_verilog(Chain(), "top")
    assert "\\" not in verilog
    assert "pair2__total" in verilog


ARRAYS = {"chain": Chain, "wide": lambda: WideArray(2, 2, drain_group=1), "fused": lambda: FusedArray(1, 4, fifo_depth=2)}


@pytest.mark.parametrize("build", ARRAYS.values(), ids=ARRAYS.keys())
def test_shared_is_plain(tmp_path, build):
    shared, plain = emit_verilog(build(), "top"), emit_verilog(build(), "top", share=False)
    assert len(modules(shared)) < len(modules(plain))
    assert equivalent(tmp_path, plain, shared)


@pytest.mark.parametrize(("right", "wrong"), [(r"2'h3", "2'h1"), (r"( = \w+) \^ ", r"\1 | ")], ids=["constant", "gate"])
def test_a_difference_is_found(tmp_path, right, wrong):
    shared = emit_verilog(Chain(), "top")
    broken = re.sub(right, wrong, shared)
    assert broken != shared
    assert not equivalent(tmp_path, emit_verilog(Chain(), "top", share=False), broken)


def test_one_name_for_two_components():
    counter = functools.partial(Counter, name="counter")
    with pytest.raises(TypeError, match="'counter' stands for two sets of arguments"):
        emit_verilog(Chain(counter), "top")


def test_ports_that_do_not_match():
    @emit_once
    class Shifty(wiring.Component):
        """Its signature depends on what is not an argument."""

        widths = iter((1, 2, 3))

        def __init__(self):
            names = [f"i{n}" for n in range(next(self.widths))]
            super().__init__({**{name: In(1) for name in names}, "o": Out(1)})

        module_name = "shifty"

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.o.eq(self.i0)
            return m

    class Parent(wiring.Component):
        o: Out(1)

        def elaborate(self, platform):
            m = Module()
            m.submodules.shifty = shifty = Shifty()
            m.d.comb += self.o.eq(shifty.o)
            return m

    with pytest.raises(TypeError, match="ports of shifty"):
        emit_verilog(Parent(), "top")


def test_escaped_names_are_turned_down():
    with pytest.raises(ValueError, match="escaped name"):
        emit_verilog(Chain(functools.partial(Counter, name="counter-{step}")), "top")


class Ripple(wiring.Component):
    """An output that its own module reads back by slices: from gates, a register, an instance and constants."""

    def __init__(self, *, taken=None):
        self.taken = taken
        super().__init__({"i": In(8), "o": Out(24, init=0x5000)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.counter = counter = Counter(8, 3)
        o = self.o
        m.d.comb += [
            counter.enable.eq(o[11]),
            o[2:10].eq(counter.sum),
            o[0].eq(self.i[0]),
            o[1].eq(~o[0] & o[5]),
            o[10].eq(Mux(o[1], self.i[1], o[14])),
            o[11].eq(o[10] ^ o[3]),
            o[16:24].eq((self.i + o[8:16])[1:]),
        ]
        m.d.sync += o[12:16].eq(o[0:4] + self.i)
        if self.taken:
            register = Signal(3, name=self.taken)
            m.d.sync += register.eq(self.i + register)
            m.d.comb += o[9].eq(register[2])
        return m


class Selector(wiring.Component):
    """A switch, which becomes a selection by conditions of which one at most is true."""

    i: In(3)
    o: Out(4)

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.i):
            for number in (1, 4, 6):
                with m.Case(number):
                    m.d.comb += self.o.eq(3 * number)
        return m


def lint_text(folder, verilog):
    (folder / "top.v").write_text(verilog)
    lint(folder / "top.v")


@pytest.mark.parametrize("build", [Ripple, Selector, Chain])
def test_lint_is_silent(tmp_path, build):
    lint_text(tmp_path, emit_verilog(build(), "top"))


def test_outputs_read_back_are_divided(tmp_path, monkeypatch):
    divided = emit_verilog(Ripple(), "top")
    monkeypatch.setattr(emit, "untangle", lambda text: text)
    whole = emit_verilog(Ripple(), "top")
    with pytest.raises(LintError, match="UNOPTFLAT"):
        lint_text(tmp_path, whole)
    assert re.search(r"^  assign o = \{ o_\w+, ", divided, re.M)
    assert equivalent(tmp_path, whole, divided)


def test_name_of_a_part_is_in_use():
    with pytest.raises(ValueError, match="o_15_12"):
        emit_verilog(Ripple(taken="o_15_12"), "top")


def test_paper_array_is_small():
    started = sum(os.times()[:4])  # of this process and its children
    verilog = emit_verilog(WideArray(PAPER.rows, PAPER.cols), "top")
    assert sum(os.times()[:4]) - started < 10
    assert len(verilog) < 500_000
    assert len(modules(verilog)) == 3


def test_a_partly_constant_register_has_a_plain_name(tmp_path):
    """With this timing Yosys finds a bit of a counter that never changes, and divides the register."""
    verilog = emit_verilog(NdpRows(DramConfig(ras=6)), "top")
    assert re.search(r"reg \w+_reg_\d+ ", verilog)
    (tmp_path / "top.v").write_text(verilog)
    lint(tmp_path / "top.v")


@pytest.mark.parametrize("name, port", [("checker", "i"), ("top", "program")])
def test_reserved_names_are_refused(name, port):
    class Named(wiring.Component):
        def __init__(self):
            super().__init__({port: In(1), "o": Out(1)})

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.o.eq(getattr(self, port))
            return m

    with pytest.raises(ValueError, match=f"{'checker' if name == 'checker' else 'program'} cannot be the name"):
        emit_verilog(Named(), name)


def test_prefix_is_before_every_module():
    prefixed = emit_verilog(Chain(), "top", prefix="soc_")
    assert sorted(modules(prefixed)) == ["soc_counter_8_1", "soc_counter_8_3", "soc_pair", "soc_top"]
    assert prefixed.replace("soc_", "") == emit_verilog(Chain(), "top")
    for prefix in ("9", "a-b", "a b", "ä", "a.", "a\n"):
        with pytest.raises(ValueError, match="no name of a module can begin with"):
            emit_verilog(Chain(), "top", prefix=prefix)


def test_comments_are_first_sentences():
    commented = emit_verilog(Chain(), "top", comments=True)
    assert "// Adds `step` to a sum at each `enable`.\nmodule counter_8_1(" in commented
    assert "// Four pairs in a row.\nmodule top(" in commented
    assert "\n".join(line for line in commented.splitlines() if not line.startswith(("// Adds", "// Two", "// Four"))) + "\n" == (
        emit_verilog(Chain(), "top")
    )


def test_memories_begin_with_anything():
    assert "initial" not in emit_verilog(Memory(8, 16), "top")


def test_sidecar_lists_the_ports_of_the_verilog(tmp_path):
    config = TINY
    verilog = verilog_and_sidecar.write(config, tmp_path)
    top = verilog.read_text().split(f"module {verilog.stem}(")[1].split("endmodule")[0]
    found = {
        name: (direction, int(high or 0) + 1)
        for direction, high, name in re.findall(r"^  (input|output)(?: reg)? (?:\[(\d+):0\] )?(\w+);", top, re.M)
    }
    listed = json.loads(verilog.with_suffix(".json").read_text())
    assert {port["name"]: (port["direction"], port["width"]) for port in listed["ports"]} == found
    assert {"clk", "rst", "irq", "m_axi__araddr"} <= found.keys() and listed["module"] == verilog.stem
    assert listed["config"]["rows"] == config.rows and listed["versions"].keys() == {"amaranth", "pyosys"}
