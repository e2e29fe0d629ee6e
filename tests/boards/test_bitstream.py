"""From a design to a board: the steps, the search for a seed, the report; without the programs, which take minutes."""

import json
import os
import re
import stat
from pathlib import Path

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.boards import ulx3s
from nibblecore.hdl.boards.targets import TARGETS
from nibblecore.hdl.config import TINY
from nibblecore.sim.boards import bitstream, flash, table, tools
from nibblecore.sim.boards.bitstream import Placement, placement
from nibblecore.sim.kept import CACHE
from nibblecore.sim.refusal import Refusal

ULX3S = TARGETS["ulx3s"]


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
                    {"delay": 0.5, "from": {"cell": "board.count_TRELLIS_FF_Q"}, **step},
                    {"delay": 1.25, "from": {"cell": "-"}, "net": "board.sum$12", "to": {"cell": "-"}},
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
    assert found.path == [(0.5, "board.count_TRELLIS_FF_Q"), (1.75, "board.sum"), (4.0, "board.total")]
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

    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(bitstream, "run", run)
    monkeypatch.setattr(bitstream, "yosys", yosys)
    monkeypatch.setattr(bitstream, "tool", lambda name: name)
    monkeypatch.setattr(bitstream, "_design", lambda *_: {"top.il": "design", "top.ys": "script", "top.lpf": "pins"})
    return frequencies, commands


def make(output, tries=4):
    return bitstream.main(board="ulx3s", config=TINY, seed=1, tries=tries, output=output)


def test_first_seed_that_meets_the_clock_is_taken_and_kept(programs, tmp_path, capsys):
    frequencies, commands = programs
    frequencies.update({1: 20.0, 2: 26.0, 3: 40.0})
    assert make(tmp_path / "out") == 0
    assert (tmp_path / "out" / "ulx3s_ltoaq_tiny.bit").read_text() == "seed 2"
    assert [command[0] for command in commands] == ["yosys", "nextpnr-ecp5", "nextpnr-ecp5", "ecppack"]
    assert {*ULX3S.nextpnr} <= {*commands[1]}
    commands.clear()
    assert make(tmp_path / "out") == 0 and not commands
    assert table.main(output=tmp_path / "out") == 0
    assert "ltoaq_tiny             26.0 MHz of 25; 1 logic cells, 2 flip-flops" in capsys.readouterr().out


def test_no_seed_is_enough(programs, tmp_path, capsys):
    frequencies, commands = programs
    frequencies.update({1: 20.0, 2: 24.0, 3: 23.0})
    assert make(tmp_path / "out", tries=3) == 1
    assert not (tmp_path / "out").exists() and commands[-1][0] == "nextpnr-ecp5"
    said = capsys.readouterr().out
    assert "seed 2: 24.0 MHz, 25 wanted" in said and "none of 3 seeds meets the clock; try more: TRIES=6" in said
    assert table.main(output=tmp_path / "out") == 0 and "no bitstream built yet" in capsys.readouterr().out


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

    def __init__(self, config, **_):
        super().__init__({"rx": In(1), "tx": Out(1), "busy": Out(1), "error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.tx.eq(self.rx)
        return m


def test_ulx3s_is_on_its_pins(monkeypatch):
    monkeypatch.setattr(ulx3s, "Board", Bare)
    platform = bitstream._platform(ULX3S)
    assert platform.device == ULX3S.device and platform.default_clk_frequency == ULX3S.clock_hz
    files = bitstream._design(ULX3S, platform, TINY)
    placed = dict(re.findall(r'LOCATE COMP "(\w+)__io" SITE "(\w+)"', files["top.lpf"]))
    assert placed == {"clk25_0": "G2", "button_fire_0": "R1", "uart_0__rx": "M1", "uart_0__tx": "L4", "led_0": "B2", "led_7": "H3"}
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;' in files["top.lpf"] and "synth_ecp5" in files["top.ys"]
    assert "src" not in files["top.il"]


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
