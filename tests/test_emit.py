"""Verilog with shared modules equals Verilog without, and what cannot be shared is turned down."""

import functools
import re
import subprocess
import sys
import time

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import PAPER
from nibblecore.hdl.emit import emit_once, emit_verilog
from nibblecore.hdl.ltoaq.array import WideArray
from nibblecore.hdl.ltoaq.fused_array import FusedArray

_YOSYS = "import sys; from pyosys import libyosys as ys; d = ys.Design(); [ys.Pass.call(d, f'tee -q {c}') for c in sys.argv[1:]]"


def equivalent(folder, gold, gate):
    """Whether two Verilog texts with a top module ``top`` are sequentially equivalent, by induction over their registers."""
    (folder / "gold.v").write_text(gold)
    (folder / "gate.v").write_text(gate)
    commands = []
    for side in ("gold", "gate"):
        commands += [f"read_verilog {folder / side}.v", "hierarchy -check -top top", "flatten", "proc", "memory -nomap; memory_map",
                     "opt_clean", f"rename top {side}", f"design -stash {side}"]  # fmt: skip
    commands += ["design -copy-from gold gold", "design -copy-from gate gate", "equiv_make gold gate equiv", "hierarchy -top equiv",
                 "async2sync", "opt_clean", "equiv_simple -undef", "equiv_induct -undef", "equiv_status -assert"]  # fmt: skip
    run = subprocess.run([sys.executable, "-c", _YOSYS, *commands], capture_output=True, text=True)
    assert run.returncode == 0 or "unproven" in run.stdout + run.stderr, run.stdout + run.stderr
    return run.returncode == 0


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


ARRAYS = {
    "chain": Chain,
    "wide_4x4": lambda: WideArray(4, 4, drain_group=2),
    "fused_2x4": lambda: FusedArray(2, 4, fifo_depth=2),
}


@pytest.mark.parametrize("build", ARRAYS.values(), ids=ARRAYS.keys())
def test_shared_is_plain(tmp_path, build):
    shared, plain = emit_verilog(build(), "top"), emit_verilog(build(), "top", share=False)
    assert len(modules(shared)) < len(modules(plain))
    assert equivalent(tmp_path, plain, shared)


@pytest.mark.parametrize(("right", "wrong"), [("8'h03", "8'h05"), ("~", "")])
def test_a_difference_is_found(tmp_path, right, wrong):
    plain = emit_verilog(Chain(), "top", share=False)
    shared = emit_verilog(Chain(), "top")
    broken = shared.replace(right, wrong) if right in shared else re.sub(r"^  assign (\w+) = (.*)\^", r"  assign \1 = \2|", shared, flags=re.M)
    assert broken != shared
    assert not equivalent(tmp_path, plain, broken)


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
    class Odd(wiring.Component):
        o: Out(1)

        def elaborate(self, platform):
            m = Module()
            odd = Signal(name="not a word", reset_less=True)
            m.d.sync += odd.eq(~odd)
            m.d.comb += self.o.eq(odd)
            return m

    with pytest.raises(ValueError, match="escaped name"):
        emit_verilog(Odd(), "top")


def test_paper_array_is_small():
    started = time.process_time()
    verilog = emit_verilog(WideArray(PAPER.rows, PAPER.cols), "top")
    assert time.process_time() - started < 10
    assert len(verilog) < 500_000
    assert len(modules(verilog)) == 3
