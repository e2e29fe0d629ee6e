"""From a design to a board: the steps, the search for a seed, the report; without the programs, which take minutes."""

import json
import os
import re
import stat
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from amaranth import Module, Signal
from amaranth.hdl import Fragment
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from nibblecore.hdl.boards import pins
from nibblecore.hdl.boards.board import Board
from nibblecore.hdl.boards.sdram_controller import Command, SdramPins
from nibblecore.hdl.boards.targets import TARGETS
from nibblecore.hdl.config import CAMBRICONQ, PRESETS, TINY
from nibblecore.hdl.memory import Memory
from nibblecore.sim import cli
from nibblecore.sim.boards import bitstream, flash, project, table, tools
from nibblecore.sim.boards.bitstream import Placement, placement
from nibblecore.sim.boards.design import plan, platform_of
from nibblecore.sim.boards.synthesis import SCRIPT, counted, synthesized, wanted
from nibblecore.sim.kept import CACHE
from nibblecore.sim.refusal import Refusal


def report(mhz):
    """As nextpnr writes it, cut to what is read."""
    step = {"net": "", "to": {"cell": ""}}
    return {
        "fmax": {"$glbnet$clk": {"achieved": mhz, "constraint": 25.0}, "fast": {"achieved": 100.0, "constraint": 50.0}},
        "utilization": {name: {"used": n, "available": 100} for n, name in enumerate(bitstream.RESOURCES, 1)},
        "critical_paths": [
            {"from": "async", "to": "posedge $glbnet$clk", "path": []},
            {
                "from": "posedge $glbnet$clk",
                "to": "posedge $glbnet$clk",
                "path": [
                    {"delay": 0.5, "from": {"cell": "board.count_TRELLIS_FF_Q_683"}, **step},
                    {"delay": 1.25, "from": {"cell": "-"}, "net": "board.sum_LUT4_C_D_CCU2C_COUT[1]", "to": {"cell": "-"}},
                    {"delay": 1.0, "from": {"cell": "-"}, "net": "board.sum$13", "to": {"cell": "-"}},
                    {"delay": 1.0, "from": {"cell": "-"}, "net": "$abc$7", "to": {"cell": "-"}},
                    {"delay": 0.25, "from": {"cell": "-"}, "net": "x", "to": {"cell": "board.total"}},
                ],
            },
        ],
    }


def test_report_is_of_the_clock_with_the_least_to_spare():
    found = placement(report(30.0), 3)
    assert (found.seed, found.mhz, found.wanted_mhz, found.met) == (3, 30.0, 25.0, True)
    assert found.use == {"logic cells": (1, 100), "flip-flops": (2, 100), "multipliers": (3, 100), "block RAMs": (4, 100)}
    assert found.path == [(0.5, "board.count"), (1.75, "board.sum"), (4.0, "board.total")]
    assert not placement(report(24.9), 3).met


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Stands in for Yosys, nextpnr and ecppack; the frequencies that seeds reach, and the commands that were run."""
    frequencies: dict[int, float] = {}
    commands: list[list[str]] = []

    def run(command, folder, log):
        commands.append(command)
        if command[0] == "nextpnr-ecp5":
            assert (folder / "top.json").read_text() == "netlist" and (folder / "top.lpf").read_text() == "pins"
            seed = int(command[command.index("--seed") + 1])
            if seed not in frequencies:
                raise tools.ToolError("nextpnr failed")
            (folder / "report.json").write_text(json.dumps(report(frequencies[seed])))
            (folder / "top.config").write_text(f"seed {seed}")
        else:
            (folder / "top.bit").write_text((folder / "top.config").read_text())

    def yosys(script, folder, log):
        commands.append(["yosys"])
        assert {path.name for path in folder.iterdir()} == {"top.il", "top.ys", "top.lpf"}
        (folder / "top.json").write_text("netlist")
        (folder / "use.json").write_text(json.dumps(use))

    use = {"design": {"num_cells_by_type": {"LUT4": 70_000, "CCU2C": 5_000, "TRELLIS_DPR16X4": 600, "MULT18X18D": 156}}}
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(bitstream, "run", run)
    monkeypatch.setattr(bitstream, "yosys", yosys)
    monkeypatch.setattr(bitstream, "tool", lambda name: name)
    script = "$NEXTPNR_ECP5 --log top.tim --85k --package CABGA381 --speed 6 --json top.json"
    files = {"top.il": "design", "top.ys": "script", "top.lpf": "pins", "build_top.sh": script}
    monkeypatch.setattr(bitstream, "plan", lambda *_: dict(files))
    return frequencies, commands


def make(output, tries=4):
    return bitstream.main(board="ulx3s", config=TINY, seed=1, tries=tries, output=output)


def test_first_seed_that_meets_the_clock_is_taken_and_kept(programs, tmp_path, capsys):
    frequencies, commands = programs
    frequencies.update({1: 20.0, 2: 26.0, 3: 40.0})
    assert make(tmp_path / "out") == 0
    assert (tmp_path / "out" / "ulx3s_ltoaq_tiny.bit").read_text() == "seed 2"
    assert [command[0] for command in commands] == ["yosys", "nextpnr-ecp5", "nextpnr-ecp5", "ecppack"]
    assert commands[1][1:6] == ["--85k", "--package", "CABGA381", "--speed", "6"]
    commands.clear()
    assert make(tmp_path / "out") == 0 and not commands
    assert table.main(output=tmp_path / "out", built=False) == 0
    listed = capsys.readouterr().out
    assert re.search(
        r"^ulx3s +LFE5U-85F +25 MHz +256 KB +3000 kBd  built here\n  ltoaq_tiny: 26.0 MHz; 1 logic cells, 2 flip-flops",
        listed,
        re.M,
    )
    assert re.search(r"^de10_nano .* prepared: make board-project$", listed, re.M)


def test_what_was_built_is_a_table(programs, tmp_path, capsys):
    """A row a bitstream, under the board that it is for: the name of one begins with that of another."""
    frequencies, _ = programs
    frequencies[1] = 26.04
    make(tmp_path / "out")
    (tmp_path / "out" / "ulx3s_ltoaq_tiny.json").rename(tmp_path / "out" / "ulx3s_45f_cambriconq_tiny.json")
    make(tmp_path / "out")
    capsys.readouterr()
    assert cli.main(["boards", "--built", "--output", str(tmp_path / "out")]) == 0
    memory = {name: f"{TARGETS[name].memory_bytes >> 10} KB" for name in ("ulx3s", "ulx3s_45f")}
    use = "1 (1%) | 2 (2%) | 3 (3%) | 4 (4%)"
    assert capsys.readouterr().out.splitlines() == [
        "| board | design | memory | seed | MHz | wanted | logic cells | flip-flops | multipliers | block RAMs |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| ulx3s | `ltoaq_tiny` | {memory['ulx3s']} | 1 | 26.0 | 25 | {use} |",
        f"| ulx3s_45f | `cambriconq_tiny` | {memory['ulx3s_45f']} | 1 | 26.0 | 25 | {use} |",
    ]
    assert table.main(output=tmp_path / "out", built=False) == 0
    listed = capsys.readouterr().out
    assert re.search(r"built here\n  ltoaq_tiny: 26\.0 MHz;[^\n]*\n(?!  )", listed) and "  cambriconq_tiny: 26.0 MHz;" in listed


def test_nothing_was_built(tmp_path, capsys):
    assert cli.main(["boards", "--built", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert not said.out and said.err == f"no bitstream was built in {tmp_path}: make bitstream BOARD=ulx3s\n"


def test_a_design_that_is_too_large_is_refused(programs):
    """Before it is placed; on the larger device of two it is not."""
    frequencies, commands = programs
    frequencies[1] = 30.0
    with pytest.raises(
        Refusal,
        match=r"^it takes 83,600 logic cells where there are 43,848 and 156 multipliers where there are 72 in an LFE5U-45F; ",
    ):
        bitstream.main(board="ulx3s_45f", config=TINY, seed=1, tries=1, output=Path("."))
    assert commands == [["yosys"]]


def memories(config):
    """Width and depth of every one that a board has with this accelerator."""
    found, todo = set(), [Fragment.get(Board(config, memory_bytes=1 << 18, clock_hz=25_000_000, baud=3_000_000), None)]
    while todo:
        fragment = todo.pop()
        found |= {(part.width, part.depth) for part in fragment.origins or () if isinstance(part, Memory)}
        todo += [sub for sub, _, _ in fragment.subfragments]
    return found


@pytest.mark.parametrize("name", ["tiny", "fpga"])
def test_no_memory_becomes_flip_flops(name):
    """Nor is anything built round one, but what chooses among several block RAMs; the smallest lie in cells, their outputs in flip-flops."""
    found = memories(PRESETS[name])
    assert len(found) > 5
    for width, depth in sorted(found):
        cells = synthesized(Memory(width, depth))
        flip_flops = cells.get("TRELLIS_FF", 0)
        if cells.get("DP16KD"):
            assert flip_flops <= 2 and cells.get("LUT4", 0) <= width + cells["DP16KD"], f"{width} × {depth}: {cells}"
        else:
            assert cells["TRELLIS_DPR16X4"] and flip_flops == width and depth <= 64, f"{width} × {depth}: {cells}"


@pytest.mark.parametrize("name", ["tiny", "fpga"])
def test_real_bitstreams_have_room(name):
    """By what Yosys counts, with a tenth of the cells to spare for nextpnr."""
    target = TARGETS["ulx3s"]
    made = bitstream._netlist(target, platform_of(target), PRESETS[name], f"ulx3s_ltoaq_{name}")
    bitstream._see_room(target, made.folder)
    use = wanted(counted(made.folder))
    assert 0 < use["logic cells"] < 0.9 * bitstream.DEVICES["85F"][0]


def test_no_seed_is_enough(programs, tmp_path, capsys):
    frequencies, commands = programs
    frequencies.update({1: 20.0, 2: 24.0, 3: 23.0})
    assert make(tmp_path / "out", tries=3) == 1
    assert not (tmp_path / "out").exists() and commands[-1][0] == "nextpnr-ecp5"
    said = capsys.readouterr().out
    assert "seed 2: 24.0 MHz, 25 wanted" in said and "none of 3 seeds meets the clock; try more: TRIES=6" in said
    assert table.main(output=tmp_path / "out", built=False) == 0 and "built here" not in capsys.readouterr().out


def test_what_broke_off_is_not_kept(programs, tmp_path):
    frequencies, commands = programs
    with pytest.raises(tools.ToolError):
        make(tmp_path / "out")
    frequencies[1] = 25.0
    commands.clear()
    assert make(tmp_path / "out") == 0
    assert [command[0] for command in commands] == ["nextpnr-ecp5", "ecppack"]


def test_a_program_that_fails_is_quoted(tmp_path):
    with pytest.raises(tools.ToolError, match=r"sh failed with status 3; the whole log is in \S+/log; its end:\nno such net"):
        tools.run(["sh", "-c", "echo no such net >&2; exit 3"], tmp_path, tmp_path / "log")


def test_yosys_runs_a_script(tmp_path):
    (tmp_path / "top.ys").write_text("read_verilog top.v\nwrite_json top.json\n")
    (tmp_path / "top.v").write_text("module top(input a, output b); assign b = ~a; endmodule\n")
    tools.yosys("top.ys", tmp_path, tmp_path / "log")
    assert "top" in json.loads((tmp_path / "top.json").read_text())["modules"]
    (tmp_path / "top.v").write_text("module top(input a\n")
    with pytest.raises(tools.ToolError, match="syntax error"):
        tools.yosys("top.ys", tmp_path, tmp_path / "log")


class Bare(wiring.Component):
    """The ports of a `Board`."""

    def __init__(self, config, sdram, **_):
        chip = {"sdram": Out(SdramPins(sdram[0]))} if sdram else {}
        super().__init__({"rx": In(1), "tx": Out(1), **chip, "busy": Out(1), "error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.tx.eq(self.rx)
        return m


@pytest.fixture
def bare(monkeypatch):
    """What lies below the pins is the same on every board."""
    monkeypatch.setattr(pins, "Board", Bare)


PINS = {
    "ulx3s": {"clk25_0": "G2", "button_fire_0": "R1", "uart_0__rx": "M1", "uart_0__tx": "L4", "led_0": "B2", "led_7": "H3"},
    "orangecrab_85f": {"clk_0": "A9", "uart_0__rx": "N17", "uart_0__tx": "M18"},
    "logicbone_85f": {"refclk_0": "M19", "uart_0__rx": "A11", "uart_0__tx": "B11", "led_0": "D16", "led_3": "B13"},
}


@pytest.mark.parametrize("name", PINS)
def test_design_is_on_the_pins_of_the_board(bare, name):
    files = plan(TARGETS[name], platform_of(TARGETS[name]), TINY)
    assert dict(re.findall(r'LOCATE COMP "(\w+)__io" SITE "(\w+)"', files["top.lpf"])) == PINS[name]
    commands = [" ".join(line.split()) for line in files["top.ys"].splitlines() if not line.startswith("#")]
    assert commands == [*SCRIPT, "write_json top.json"] and "src" not in files["top.il"]


def bits(name, pins):
    return {f"{name}_{bit}": pin for bit, pin in enumerate(pins.split())}


SDRAM = {
    **{"clk": "F19", "clk_en": "F20", "cs": "P20", "ras": "R20", "cas": "T19", "we": "T20"},
    **bits("ba", "P19 N20"),
    **bits("a", "M20 M19 L20 L19 K20 K19 K18 J20 J19 H20 N19 G20 G19"),
    **bits("dqm", "U19 E20"),
    **bits("dq", "J16 L18 M18 N18 P18 T18 T17 U20 E19 D20 D19 C20 E18 F18 J18 J17"),
}


def test_sdram_is_on_the_pins_of_the_board(bare):
    """Registers in the pads: of each wire what it says and whether it does, and of data what they hear; the clock has its own kind."""
    files = plan(TARGETS["ulx3s_sdram"], platform_of(TARGETS["ulx3s_sdram"]), TINY)
    found = dict(re.findall(r'LOCATE COMP "(\w+)__io(?:\[\d+\])?" SITE "(\w+)"', files["top.lpf"]))
    located = {
        (name + f"_{bit}" if bit else name).removeprefix("sdram_0__"): pin
        for name, bit, pin in re.findall(r'LOCATE COMP "(sdram_0__\w+)__io(?:\[(\d+)\])?" SITE "(\w+)"', files["top.lpf"])
    }
    assert located == SDRAM and PINS["ulx3s"].items() <= found.items()
    cells = Counter(re.findall(r"^  cell \\(\w+) ", files["top.il"], re.M))
    assert cells["ODDRX1F"] == 1 and cells["OFS1P3DX"] == 2 * (len(SDRAM) - 1) + 1 and cells["IFS1P3DX"] == 16


def test_an_engine_needs_block_ram():
    with pytest.raises(
        Refusal, match=r"the engine .* needs banks of block RAM, and the memory of ulx3s_sdram is SDRAM; take tiny_bus"
    ):
        plan(TARGETS["ulx3s_sdram"], platform_of(TARGETS["ulx3s_sdram"]), CAMBRICONQ["tiny"])
    with pytest.raises(ValueError, match="needs banks of block RAM"):
        sdram = TARGETS["ulx3s_sdram"].timed_sdram
        Board(CAMBRICONQ["tiny"], memory_bytes=1 << 16, clock_hz=25_000_000, baud=None, sdram=sdram)


def test_a_chip_is_told_by_its_wires():
    """RAS, CAS and WE, low where the chip's table of commands has them low."""
    low = {"NOP": "", "ACTIVATE": "R", "READ": "C", "REFRESH": "RC", "PRECHARGE": "RW", "WRITE": "CW", "MODE": "RCW"}
    assert {command.name: "".join(wire for bit, wire in enumerate("RCW") if command >> bit & 1) for command in Command} == low


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_every_board_has_a_design_at_its_clock(bare, target):
    platform = platform_of(target)
    divisor = platform.default_clk_frequency / target.clock_hz
    assert platform.device == target.device and (divisor == 1 or divisor % 2 == 0)
    assert target.vendor == (platform.toolchain != "Trellis")
    files = plan(target, platform, TINY)
    constraints = "\n".join(text for name, text in files.items() if name.endswith((".lpf", ".xdc", ".sdc")))
    assert f"{float(target.clock_hz)} HZ" in constraints or f"-period {1e9 / target.clock_hz} " in constraints, constraints


@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_divided_clock(divisor):
    m, clock = Module(), Signal()
    slow = pins.divided(m, clock, divisor)
    seen = []

    async def bench(context):
        for level in 64 * [1, 0]:
            context.set(clock, level)
            await context.delay(1e-6)
            seen.append(context.get(slow))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    rises = [n for n in range(1, len(seen)) if seen[n] > seen[n - 1]]
    falls = [n for n in range(1, len(seen)) if seen[n] < seen[n - 1]]
    assert {b - a for a, b in pairwise(rises)} == {b - a for a, b in pairwise(falls)} == {2 * divisor}
    assert abs(falls[0] - rises[0]) == divisor


@pytest.mark.parametrize("name", ["ulx3s", "arty_a7_100"])
def test_project(bare, name, tmp_path, capsys):
    (tmp_path / f"{name}_ltoaq_tiny").mkdir()
    (tmp_path / f"{name}_ltoaq_tiny" / "stale").touch()
    assert project.main(board=name, config=TINY, output=tmp_path) == 0
    (folder,) = tmp_path.iterdir()
    files = {path.name for path in folder.iterdir()}
    assert {
        "build_top.sh",
        "build_top.bat",
        *({"top.v", "top.xdc", "top.tcl"} if name != "ulx3s" else {"top.il", "top.lpf"}),
    } <= files
    assert "stale" not in files and os.access(folder / "build_top.sh", os.X_OK)
    assert "not built here" in capsys.readouterr().out


def test_bitstream_of_a_vendors_board_is_refused():
    with pytest.raises(Refusal, match="make board-project BOARD=de10_nano"):
        bitstream.main(board="de10_nano", config=TINY, seed=1, tries=1, output=Path("."))


@pytest.fixture
def loader(monkeypatch, tmp_path):
    """A program called openFPGALoader on PATH, which writes down what it is told and ends as told."""
    path = tmp_path / "bin" / "openFPGALoader"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nexit $(cat {tmp_path}/status)\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "status").write_text("0")
    return tmp_path


@pytest.mark.parametrize("keep", [False, True])
def test_flash(loader, keep, capsys):
    with pytest.raises(Refusal, match="make it first"):
        flash.main(board="ulx3s", config=TINY, output=loader, keep=keep)
    with pytest.raises(Refusal, match="does not know it"):
        flash.main(board="logicbone_85f", config=TINY, output=loader, keep=keep)
    file = loader / "ulx3s_ltoaq_tiny.bit"
    file.touch()
    assert flash.main(board="ulx3s", config=TINY, output=loader, keep=keep) == 0
    assert (loader / "said").read_text() == f"--board ulx3s {'--write-flash ' * keep}{file}\n"
    (loader / "status").write_text("1")
    assert flash.main(board="ulx3s", config=TINY, output=loader, keep=keep) == 1
    assert "is the ulx3s connected" in capsys.readouterr().out


def test_a_missing_program_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(FileNotFoundError, match=r"ecppack is missing; .*pip install 'nibblecore\[boards\]'"):
        tools.tool("ecppack")


def test_real_bitstream_of_the_ulx3s(tmp_path):
    """Meets its clock, and its memories are block RAM: 128 of the board's memory, and those of the accelerator and the link."""
    assert bitstream.main(board="ulx3s", config=TINY, seed=1, tries=4, output=tmp_path) == 0
    built = json.loads(Path(tmp_path, "ulx3s_ltoaq_tiny.json").read_text())
    assert Placement(**built).met
    assert built["use"]["block RAMs"][0] == 138 and built["use"]["flip-flops"][0] < 9_000
    assert Path(tmp_path, "ulx3s_ltoaq_tiny.bit").stat().st_size > 100_000
