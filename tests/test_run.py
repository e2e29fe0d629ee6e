import numpy as np
import pytest
from nibblecore.sim import run
from nibblecore.sim.compiler import asm

SOURCE = """
SLOAD rows=2 cols=8 dest_row=8 dest_col=1 src_row=32
VFMUL phase=3 rows=2 cols=8 dest_row=8 dest_col=1 a_row=8 a_col=1 value=0.5f
SSTORE phase=4 rows=2 cols=8 dest=128 dest_row=32 src_row=8 src_col=1
HALT
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "half.s").write_text(SOURCE)
    np.arange(16, dtype=np.float32).tofile(tmp_path / "before.bin")
    return tmp_path


def command(files, *arguments, program="half.s"):
    return run.main([str(files / program), "--memory-size", "0x10000", *map(str, arguments)])


def test_source_and_binary(files, capsys):
    (files / "half.bin").write_bytes(asm.assemble(SOURCE))
    for program in ("half.s", "half.bin"):
        arguments = ("--memory", files / "before.bin", "--output", files / "after.bin", "--entry", "0x1000")
        assert command(files, *arguments, program=program) == 0
        after = np.fromfile(files / "after.bin", np.float32)
        assert len(after) == 1 << 14
        assert np.array_equal(after[32:48], np.arange(16) / 2)
        text = capsys.readouterr().out
        assert "4 instructions at 0x1000, config tiny" in text and "65,536 bytes of memory equal" in text and "phase 3" in text


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
    "arguments, message",
    [
        (("--memory-size", 100), "100 is no multiple of 64"),
        (("--entry", 0xFFC0), "need more memory than 0x10000"),
        (("--stall", 1), "--stall 1.0"),
        (("--memory", "nowhere.bin"), "nowhere.bin"),
    ],
)
def test_says_what_is_wrong(files, capsys, arguments, message):
    assert command(files, *arguments, "--output", files / "after.bin") == 1
    assert message in capsys.readouterr().err and not (files / "after.bin").exists()


def test_files_that_are_no_program(files, capsys):
    (files / "half.s").write_text("HALT now\n")
    assert command(files) == 1
    (files / "odd.bin").write_bytes(bytes(63))
    assert command(files, program="odd.bin") == 1
    text = capsys.readouterr().err
    assert "half.s: line 1" in text and "63 bytes are no whole number" in text


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
