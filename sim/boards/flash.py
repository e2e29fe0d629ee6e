"""A bitstream onto a board."""

import subprocess
from pathlib import Path

from nibblecore.hdl.boards.targets import TARGETS
from nibblecore.sim.machines import Config, full_name
from nibblecore.sim.refusal import Refusal

from .tools import tool

__all__ = ["main"]


def main(*, board: str, config: Config, output: Path, keep: bool) -> int:
    """``nibblecore flash``; the status is openFPGALoader's."""
    if not TARGETS[board].loader:
        raise Refusal("board", "openFPGALoader does not know it; use its vendor's programmer")
    name = f"{board}_{full_name(config)}"
    bitstream = output / f"{name}.bit"
    if not bitstream.exists():
        raise Refusal("config", f"there is no {bitstream}; make it first: make bitstream with the same BOARD, MACHINE and CONFIG")
    loader = tool("openFPGALoader")
    command = [loader, "--board", TARGETS[board].loader, *(["--write-flash"] if keep else []), str(bitstream)]
    try:
        status = subprocess.run(command).returncode
    except OSError as error:
        raise RuntimeError(f"{loader} does not start: {error}") from None
    if status:
        print(
            f"openFPGALoader ended with status {status}: is the {board} connected, and may you use it? On Debian and Ubuntu it needs "
            "libusb-1.0-0 and libftdi1-2, and the user to be in the group plugdev"
        )
    return 1 if status else 0
