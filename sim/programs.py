"""Programs for other tools to start, from what pip installs as modules."""

import hashlib
import shlex
import sys
from pathlib import Path

from .kept import cache_folder, kept

__all__ = ["program", "yosys"]

_YOSYS = """# As much of the yosys command as sby and Amaranth use, on pyosys, which starts in a fraction of a second.
import sys
import tempfile
from importlib.metadata import version
from pyosys import libyosys as ys
arguments = sys.argv[1:]
log = None
if arguments == ["-V"]:
    print("Yosys", version("pyosys"))
    sys.exit()
while arguments and arguments[0].startswith("-") and arguments[0] != "-":
    option = arguments.pop(0)
    if option in ("-ql", "-l"):
        log = arguments.pop(0)
    elif option != "-q":
        sys.exit(f"yosys on pyosys: unknown option {option}")
design = ys.Design()
for script in arguments:
    with tempfile.NamedTemporaryFile("w", suffix=".ys") as typed:
        if script == "-":
            typed.write(sys.stdin.read())
            typed.flush()
            script = typed.name
        ys.run_pass((f"tee -q -o {log} " if log else "tee -q ") + f"script {script}", design)
"""


def program(name: str, body: str) -> Path:
    """An executable file of that name with a Python program for this interpreter; kept."""
    # Text to the shell and to Python alike: an interpreter's path in a script's first line would end at a space.
    start = f"#!/bin/sh\n'Q'exec' {shlex.quote(sys.executable)} \"$0\" \"$@\"\n' 'Q'\n".replace("Q", "'")

    def make(folder: Path) -> None:
        (folder / name).write_text(start + body)
        (folder / name).chmod(0o755)

    digest = hashlib.sha256((start + body).encode()).hexdigest()[:12]
    return kept(cache_folder() / "programs" / f"{name}-{digest}", make) / name


def yosys() -> Path:
    """The command ``yosys``."""
    return program("yosys", _YOSYS)
