import numpy as np
import pytest
from nibblecore.sim import run
from nibblecore.sim.compiler import asm
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.host.cambriconq.compared import Ended, Mismatch

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
    assert "stopped at instruction 2 with MEMORY_RANGE: SSTORE phase=4 rows=2 cols=8 dest=65520" in capsys.readouterr().err
    (files / "none.s").write_text("SLOAD rows=1 cols=1 dest_row=1 dest_col=1\n")
    assert command(files, program="none.s") == 1
    assert "stopped at instruction 1 with ILLEGAL_INSTRUCTION" in capsys.readouterr().err


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
    def differs(pair, entry):
        pair.model.memory[4] ^= 1
        return real(pair, entry)

    real = run.Compared.run_at
    monkeypatch.setattr(run.Compared, "run_at", differs)
    assert command(files, "--output", files / "after.bin") == 1
    assert "the hardware differs from the functional model: " in capsys.readouterr().err and not (files / "after.bin").exists()


def test_an_end_that_differs(files):
    """The model finds the end of its memory earlier."""
    with run.Compared(run.CAMBRICONQ["tiny"], memory_size=1 << 16) as pair:
        pair.write_memory(0, asm.assemble("SLOAD rows=1 cols=1 dest_row=1 dest_col=1 src=0xFFFC\nHALT\n"))
        assert pair.run_at(0) == Ended(ErrorCode.NONE, 0, 0)
        pair.model.memory = pair.model.memory[:-64]
        with pytest.raises(Mismatch, match="ended at its HALT, not ended with MEMORY_RANGE at instruction 0"):
            pair.run_at(0)
