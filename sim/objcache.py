"""Compiler launcher: Verilator's runtime is compiled once for all models, and so, with ``--headers``, are the headers that they read.

A program of its own, quick to start: ``objcache.py STORE [--headers] g++ … -c -o verilated.o …/verilated.cpp``. `nibblecore.sim.verilator`
makes it ``OBJCACHE`` of Verilator's makefiles.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HEADERS = ("verilated.h", "verilated_dpi.h", "verilated_vpi.h", "memory", "string")
"""What every model includes; to parse them takes longer than to compile what a small block becomes."""


def _headers(store: Path, options: list[str]) -> list[str]:
    """More options, with which a compiler finds the headers precompiled; none if they cannot be."""
    header = Path(os.environ["VERILATOR_ROOT"], "include", HEADERS[0])
    name = _digest(*options, str(header), str(header.stat().st_mtime_ns))
    text, compiled = store / f"{name}.h", store / f"{name}.h.gch"
    if not compiled.exists():
        _put(text, lambda path: path.write_text("".join(f"#include <{file}>\n" for file in HEADERS)))
        unfinished = store / f"{name}.{os.getpid()}"
        if subprocess.run([*options, "-x", "c++-header", str(text), "-o", str(unfinished)]).returncode:
            return []
        unfinished.replace(compiled)
    return ["-include", str(text)]


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:24]


def _put(kept: Path, write: Callable[[Path], object]) -> None:
    """Write a file of the store, which another process may be about to write as well."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(f".{os.getpid()}")
    write(unfinished)
    unfinished.replace(kept)


def main(store: Path, headers: bool, command: list[str]) -> int:
    root, source = os.environ.get("VERILATOR_ROOT"), Path(command[-1])
    if root is None or source.suffix != ".cpp" or not {"-c", "-o"} <= {*command}:
        return subprocess.run(command).returncode
    place = command.index("-o") + 1
    target, unnamed = Path(command[place]), [*command[:place], *command[place + 1 :]]
    if Path(root) not in source.parents:
        # The compiler takes one precompiled header: where Verilator has made one of the model it is that.
        with_headers = headers and "-include" not in command
        options = [word for word in unnamed[:-1] if word not in ("-c", "-o", "-MMD")]
        return subprocess.run([command[0], *(_headers(store, options) if with_headers else []), *command[1:]]).returncode
    # The runtime reads nothing of the design.
    kept = store / f"{_digest(*unnamed, str(source.stat().st_mtime_ns))}.o"
    if not kept.exists():
        if status := subprocess.run(command).returncode:
            return status
        _put(kept, lambda path: shutil.copyfile(target, path))
        return 0
    shutil.copyfile(kept, target)
    target.with_suffix(".d").write_text("")
    return 0


if __name__ == "__main__":
    _headers_too = sys.argv[2] == "--headers"
    sys.exit(main(Path(sys.argv[1]), _headers_too, sys.argv[2 + _headers_too :]))
