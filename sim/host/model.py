"""Designs under Verilator, each with its harness in C++ one shared library, kept under a hash of what it is made from."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nibblecore.hdl.emit.emit import emit_verilog
from nibblecore.sim import verilator
from nibblecore.sim.kept import cached, kept
from nibblecore.sim.progress import building, doing

__all__ = ["LIBRARIES", "SimulationError", "kept_verilog", "library"]

LIBRARIES = "-shared"
"""For the linker."""

_ROOM = "sim"
_PRODUCT = "simulation.so"
_HDL = Path(__file__).resolve().parents[2] / "hdl"


class SimulationError(RuntimeError):
    """The design broke a rule of AXI4 or never answered, or the model could not be built."""


def library(what: str, name: str, verilog: str, harness: Sequence[Path], flags: str = "", more: Sequence[str] = ()) -> Path:
    """The shared library of the module ``top`` in `verilog`, built unless it lies in the cache; a half-built one is never there.

    Parameters
    ----------
    what, name : str
        Of the library, for the terminal and for the cache.
    verilog : str
    harness : sequence of Path
        Sources in C++, first the one to be compiled.
    flags : str
        For the compiler.
    more : sequence of str
        For Verilator.

    Raises `SimulationError` if it cannot be built.
    """
    verilator.executable()  # what is missing is said before the work, not after it
    arguments = _arguments(flags, more)
    made_from = [verilog, *(file.read_text() for file in harness), json.dumps(arguments), _verilator_version()]
    folder = cached(_ROOM, f"{name}-{_digest(*made_from)}")

    def make(result: Path) -> None:
        verilator.require_compiler()
        (result / "top.v").write_text(verilog)
        with building(what), verilator.workshop(result.parent, [result / "top.v", *harness]) as workshop:
            _compile_in(workshop, harness[0].name, arguments, result.parent.parent / "failed.log")
            shutil.move(workshop / _PRODUCT, result)

    return kept(folder, make) / _PRODUCT


def kept_verilog(name: str, arguments: str, component: Callable[[], Any]) -> str:
    """Verilog of the component as ``top``, kept under a hash of `arguments` and of the hardware's sources: 32 × 32 takes seconds to write."""
    sources = [path.read_text() for path in sorted(_HDL.rglob("*.py"))]
    tools = [version("amaranth"), version("pyosys"), sys.version]
    folder = cached(_ROOM, f"{name}-verilog-{_digest(arguments, *tools, *sources)}")

    def make(result: Path) -> None:
        # Where there is no Verilog yet there is no simulation either.
        verilator.executable()
        verilator.require_compiler()
        with doing(f"writing the Verilog of {name}"):
            (result / "top.v").write_text(emit_verilog(component(), "top"))

    kept(folder, make)
    return (folder / "top.v").read_text()


def _arguments(flags: str, more: Sequence[str]) -> list[str]:
    return [
        "--cc",
        "--exe",
        "--build",
        "--prefix",
        "Vtop",
        "--top-module",
        "top",
        "-O3",
        "--x-initial",
        "unique",
        "--noassert",
        *verilator.WARNINGS,
        *more,
        "-CFLAGS",
        f"-std=c++17 -fPIC {flags}".rstrip(),
        "-LDFLAGS",
        LIBRARIES,
        "-MAKEFLAGS",
        "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1",
    ]


def _compile_in(folder: Path, harness: str, arguments: list[str], log: Path) -> None:
    command = [
        verilator.executable(),
        *arguments,
        "--build-jobs",
        str(_processors()),
        "--Mdir",
        "objects",
        "-o",
        f"../{_PRODUCT}",
        "top.v",
        harness,
    ]
    environment = verilator.environment() | {"OBJCACHE": verilator.launcher()}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    if run.returncode or not (folder / _PRODUCT).exists():
        log.write_text(run.stdout + run.stderr)
        last = "\n".join((run.stdout + run.stderr).splitlines()[-20:])
        raise SimulationError(f"Verilator failed with status {run.returncode}; the whole log is in {log}; its end:\n{last}")


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _verilator_version() -> str:
    return subprocess.run([verilator.executable(), "--version"], env=verilator.environment(), capture_output=True, text=True).stdout


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
