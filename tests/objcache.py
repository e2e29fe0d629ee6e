"""Compiler launcher: compiles Verilator's own runtime once for all benches, and everything else as it is told.

Used as ``OBJCACHE`` of Verilator's makefiles: ``objcache.py g++ … -c -o verilated.o …/verilated.cpp``.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

STORE = Path(__file__).resolve().parent.parent / "build" / "objcache"


def _runtime_source(command: list[str]) -> Path | None:
    """The source to compile, if it is one of the runtime's: those read nothing of the design."""
    root = os.environ.get("VERILATOR_ROOT")
    if root is None or "-c" not in command or "-o" not in command:
        return None
    source = Path(command[-1])
    return source if source.suffix == ".cpp" and Path(root) in source.parents else None


def main(command: list[str]) -> int:
    source = _runtime_source(command)
    if source is None:
        return subprocess.run(command).returncode
    place = command.index("-o") + 1
    target = Path(command[place])
    words = [*command[:place], *command[place + 1 :], str(source.stat().st_mtime_ns)]
    kept = STORE / (hashlib.sha256("\0".join(words).encode()).hexdigest()[:24] + ".o")
    if not kept.exists():
        status = subprocess.run(command).returncode
        if status:
            return status
        STORE.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(target, unfinished)
        unfinished.replace(kept)
        return 0
    shutil.copyfile(kept, target)
    target.with_suffix(".d").write_text("")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
