"""What takes a while says so on a terminal, and nowhere else."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

from nibblecore.sim import progress
from nibblecore.sim.verbs import VERBS

SHORT = {
    "flash": "openFPGALoader has the terminal, and a bar of its own",
    "boards": "a table of constants and of small files",
    "asm": "a file of text, one pass",
    "disasm": "a file of numbers, one pass",
    "docs": "pages written from constants",
}
"""Verbs that take less than two seconds, and why."""
LONG = {
    "verilog": "OUTPUT=out",
    "train": "STEPS=2 OUTPUT=out",
    "accuracy": "MACHINE=ltoaq STEPS=1 COUNT=1 BITS=4",
    "virtual-board": "",
    "bitstream": "OUTPUT=out",
    "board-project": "OUTPUT=out",
    "bandwidth": "",
    "selftest": "PORT=silent",
    "traffic": "STEPS=1",
    "listing": "",
    "estimate": "NET=mlp CONFIG=tiny",
    "regress": "COUNT=2",
    "area": "BLOCK=bus.writer",
    "compare": "--rows 4 --cols 4 --elements 8 --passes 2 --ratios 0 --depths 4",
    "utilization": "--rows 4 --cols 4 --elements 8 --passes 2 --ratios 0 --depths 2",
    "endtoend": "CONFIG=tiny SIZE=64 --ratios 0",
    "product": "CONFIG=tiny SIZE=64",
    "run": "FILE=program.s MEMORY_SIZE=67108864",
    "formal": "bus.burst_splitter",
    "mutants": "BLOCK=arith.nibble_mac COUNT=1",
    "figures": "ONLY=traffic",
}
"""All others, and how little of them will do."""
ELSEWHERE = {
    "train": "MACHINE=cambriconq STEPS=1 OUTPUT=out",
    "accuracy": "MACHINE=cambriconq NET=mlp OPT=sgd BITS=8",
    "traffic": "MACHINE=cambriconq STEPS=1",
    "regress": "MACHINE=cambriconq COUNT=2",
}
"""Verbs that run other code on another machine."""


def test_every_verb_that_takes_a_while_says_so(tmp_path):
    """A new verb counts as long until it stands above."""
    assert SHORT.keys().isdisjoint(LONG) and SHORT.keys() | LONG.keys() == VERBS.keys()
    several = {verb.name for verb in VERBS.values() if not isinstance(verb.run, str)} - {"mutants"}
    assert ELSEWHERE.keys() == several
    (tmp_path / "program.s").write_text("HALT\n")
    # A board that is not programmed: nothing answers.
    board, port = pty.openpty()
    typed = [f"{verb} {text}".replace("silent", os.ttyname(port)) for table in (LONG, ELSEWHERE) for verb, text in table.items()]
    program = [sys.executable, str(Path(__file__).with_name("terminal.py")), str(tmp_path / "cache"), json.dumps(typed)]
    try:
        run = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    finally:
        os.close(board)
        os.close(port)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {}


def shown(monkeypatch, terminal, doing=progress.doing):
    """What stderr gets in some hundredths of a second, by a clock that ticks often."""
    reading, writing = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(writing, (24, 80))
    monkeypatch.setattr(progress, "_SECONDS", 0.02)
    with os.fdopen(writing, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with doing("compiling"):
            time.sleep(0.3)
        stream.flush()
        os.set_blocking(reading, False)
        got = b""
        with suppress(BlockingIOError):
            # A terminal hands over what it has in parts.
            while part := os.read(reading, 1 << 16):
                got += part
        return got.decode()


def test_a_terminal_is_told(monkeypatch):
    assert shown(monkeypatch, terminal=True).count("compiling … 00:00") > 3


def test_a_file_is_not(monkeypatch):
    assert shown(monkeypatch, terminal=False) == ""


def test_what_was_built_stays_in_a_line(monkeypatch):
    line = "building compiling (cached next time) …"
    assert re.fullmatch(rf"{re.escape(line)} \d+ s\n", shown(monkeypatch, False, progress.building))
    got = shown(monkeypatch, True, progress.building)
    assert got.count(f"{line} 00:0") > 3 and re.search(rf"\r{re.escape(line)} \d+ s\r\n\Z", got)
