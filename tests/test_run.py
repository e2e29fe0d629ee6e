import re

import numpy as np
import pytest
from nibblecore.sim import cli, run
from nibblecore.sim.compiler import asm

SOURCE = """
SLOAD rows=2 cols=8 dest_row=8 dest_col=1 src_row=32
VFMUL phase=3 rows=2 cols=8 dest_row=8 dest_col=1 a_row=8 a_col=1 value=0.5f
SSTORE phase=4 rows=2 cols=8 dest=128 dest_row=32 src_row=8 src_col=1
SSTORE phase=6 rows=2 cols=8 dest=128 dest_row=32 src_row=8 src_col=1
HALT
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "half.s").write_text(SOURCE)
    np.arange(16, dtype=np.float32).tofile(tmp_path / "before.bin")
    return tmp_path


def command(files, *arguments, program="half.s"):
    return cli.main(["run", str(files / program), "--memory-size", "0x10000", *map(str, arguments)])


def test_source_and_binary(files, capsys):
    (files / "half.bin").write_bytes(asm.assemble(SOURCE))
    for program in ("half.s", "half.bin"):
        arguments = ("--memory", files / "before.bin", "--output", files / "after.bin", "--entry", "0x1000")
        assert command(files, *arguments, program=program) == 0
        after = np.fromfile(files / "after.bin", np.float32)
        assert len(after) == 1 << 14
        assert np.array_equal(after[32:48], np.arange(16) / 2)
        text = capsys.readouterr().out
        assert "5 instructions at 0x1000, config tiny" in text and "65,536 bytes of memory equal" in text
        assert re.search(r"; other [\d,]+, WG [\d,]+, WU [\d,]+, phase 6 [\d,]+$", text, re.M)


def test_refused(files, capsys):
    (files / "half.s").write_text(SOURCE.replace("dest=128", "dest=0xFFF0"))
    assert command(files) == 1
    error = capsys.readouterr().err
    assert "stopped: MEMORY_RANGE in instruction 2 of the program at 0x0 (SSTORE phase=4 rows=2 cols=8 dest=65520 " in error
    assert "src_col=1): beyond MEMORY_LAST, or beyond the memory of the engine; keep operands" in error
    (files / "none.s").write_text("SLOAD rows=1 cols=1 dest_row=1 dest_col=1\n")
    assert command(files, program="none.s") == 1
    assert "stopped: ILLEGAL_INSTRUCTION in instruction 1 of the program at 0x0 (" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message, status",
    [
        (("--memory-size", 100), "--memory-size 100: must be a multiple of 64", 2),
        (("--entry", 0xFFC0), "--entry 65472: image (0..0x0) and program (0xffc0..0x10100) need more memory than 0x10000", 2),
        (("--entry", 4), "--entry 4: must be a multiple of 64", 2),
        (("--stall", 1), "--stall 1: must be in 0..1, 1 excluded", 2),
        (("--memory-size", 64), "--memory-size 64: image (0..0x0) and program (0x0..0x140) need more memory than 0x40", 2),
        (("MEMORY=nowhere.bin",), "nowhere.bin: No such file or directory", 1),
    ],
)
def test_says_what_is_wrong(files, capsys, arguments, message, status):
    assert command(files, *arguments, "--output", files / "after.bin") == status
    assert capsys.readouterr().err == message + "\n" and not (files / "after.bin").exists()


def test_files_that_are_no_program(files, capsys):
    (files / "half.s").write_text("HALT now\n")
    assert command(files) == 1
    (files / "odd.bin").write_bytes(bytes(63))
    assert command(files, program="odd.bin") == 1
    (files / "binary.s").write_bytes(b"\xff\xfe")
    assert command(files, program="binary.s") == 1
    first, second, third = capsys.readouterr().err.splitlines()
    assert "half.s: line 1" in first and "63 bytes are no whole number" in second and "binary.s: is no text" in third


def test_a_difference_is_told(files, capsys, monkeypatch):
    def differs(checked, entry):
        checked.model.write_memory(4, b"\x01")
        real(checked, entry)

    real = run.CheckedAccelerator.run
    monkeypatch.setattr(run.CheckedAccelerator, "run", differs)
    assert command(files, "--output", files / "after.bin") == 1
    error = capsys.readouterr().err
    assert "the accelerator differs from the functional model: memory: the word at 0x4 is 0x0" in error
    assert not (files / "after.bin").exists()
