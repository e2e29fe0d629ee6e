"""Generated names are the source's, the same whatever Python generates them.

Amaranth reads a signal's name from the bytecode of the assignment that makes it, and what it can read there depends on Python's version.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import amaranth
import pytest

ROOT = Path(__file__).resolve().parents[2]

EMIT = """
import importlib
from nibblecore.hdl.config import CAMBRICONQ, PRESETS
from nibblecore.hdl.emit.emit import _Emitter
for machine, config in (("ltoaq", PRESETS["tiny"]), ("ltoaq", PRESETS["tiny_fused"]), ("cambriconq", CAMBRICONQ["tiny"])):
    print(_Emitter(sources=False).text(importlib.import_module(f"nibblecore.hdl.{machine}.top").Accelerator(config), "top"))
"""


def emitted(python, folder):
    """What that interpreter makes of both machines, before Yosys: Amaranth is pure Python, so one installation serves all of them."""
    (folder / "nibblecore").mkdir(exist_ok=True)
    if not (folder / "nibblecore" / "hdl").exists():
        (folder / "nibblecore" / "hdl").symlink_to(ROOT / "hdl")
    path = os.pathsep.join([str(folder), str(Path(amaranth.__file__).parents[1])])
    run = subprocess.run([python, "-c", EMIT], env={**os.environ, "PYTHONPATH": path}, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def other_pythons():
    """Interpreters of other supported versions, on PATH or installed beside this one."""
    found: dict[int, str] = {}
    for minor in range(11, 15):
        name = f"python3.{minor}"
        beside = sorted(Path(sys.base_prefix).parent.glob(f"*/bin/{name}"))
        for candidate in [*beside, *filter(None, [shutil.which(name)])]:
            works = subprocess.run([str(candidate), "-c", "pass"], capture_output=True).returncode == 0
            if works and minor != sys.version_info.minor:
                found.setdefault(minor, str(candidate))
    return list(found.values())


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return emitted(sys.executable, tmp_path_factory.mktemp("here"))


def test_every_signal_has_a_name(here):
    assert "module" in here
    nameless = re.findall(r"^  wire .*\\\$(?:signal|like)\S*$", here, re.M)
    assert not nameless, f"{len(nameless)} signals without a name"


def test_every_python_gives_the_same_text(here, tmp_path):
    others = other_pythons()
    if not others:
        pytest.skip("no other supported version of Python is here")
    for python in others:
        assert emitted(python, tmp_path) == here, f"{python} emits other text than {sys.executable}"


@pytest.mark.parametrize("path", sorted((ROOT / "hdl").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_signals_are_made_one_by_one(path):
    """``a, b = Signal(), Signal()`` loses names on some versions; one with a name of its own does not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            for call in node.value.elts if isinstance(node.value, ast.Tuple) else [getattr(node.value, "elt", None)]:
                if isinstance(call, ast.Call) and ast.unparse(call.func) in ("Signal", "Signal.like"):
                    assert any(keyword.arg == "name" for keyword in call.keywords), f"{path.name}:{node.lineno}"
