"""The boards, and what was last built for them."""

import json
from pathlib import Path

from nibblecore.hdl.boards.targets import TARGETS

__all__ = ["main"]


def main(*, output: Path) -> int:
    """``nibblecore boards``"""
    for target in TARGETS.values():
        print(
            f"{target.name}: {target.device}, {target.memory_bytes >> 10} KB of block RAM as memory, serial line at {target.baud:,} baud"
        )
        reports = sorted(output.glob(f"{target.name}_*.json"))
        for path in reports:
            report = json.loads(path.read_text())
            use = ", ".join(f"{used:,} {name}" for name, (used, _) in report["use"].items())
            print(f"  {path.stem.removeprefix(target.name + '_'):<22} {report['mhz']:.1f} MHz of {report['wanted_mhz']:.0f}; {use}")
        if not reports:
            print(f"  no bitstream built yet: make bitstream BOARD={target.name}")
    return 0
