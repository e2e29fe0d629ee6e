"""The boards, and what was last built for them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nibblecore.hdl.boards.targets import TARGETS, Target

from .bitstream import RESOURCES

__all__ = ["main"]

Build = tuple[str, dict[str, Any]]
"""A design and the report of its bitstream, as `nibblecore.sim.boards.bitstream` writes it."""


def _builds(output: Path) -> dict[str, list[Build]]:
    """By the board's name; a file is called after board and design."""
    found: dict[str, list[Build]] = {name: [] for name in TARGETS}
    for path in sorted(output.glob("*.json")):
        # The longest, as one board's name may begin with another's.
        board = max((name for name in TARGETS if path.stem.startswith(f"{name}_")), key=len, default=None)
        if board:
            found[board].append((path.stem.removeprefix(f"{board}_"), json.loads(path.read_text())))
    return found


def _listed(target: Target, builds: list[Build]) -> Iterator[str]:
    made_by = "prepared: make board-project" if target.vendor else "make bitstream"
    yield (
        f"{target.name:<15} {target.device:<14} {target.clock_hz // 1_000_000:>2} MHz  {target.memory_bytes >> 10:>3} KB"
        f"  {target.baud // 1000:>4} kBd  {'built here' if builds else made_by}"
    )
    for design, report in builds:
        use = ", ".join(f"{used:,} {name}" for name, (used, _) in report["use"].items())
        yield f"  {design}: {report['mhz']:.1f} MHz; {use}"


def _table(builds: dict[str, list[Build]]) -> Iterator[str]:
    """As Markdown; shares are those of the device."""
    yield f"| board | design | memory | seed | MHz | wanted | {' | '.join(RESOURCES.values())} |"
    yield "| --- | --- " + "| ---: " * (4 + len(RESOURCES)) + "|"
    for board, reports in builds.items():
        for design, report in reports:
            use = " | ".join(f"{used:,} ({used / there:.0%})" for used, there in map(report["use"].get, RESOURCES.values()))
            memory = f"{TARGETS[board].memory_bytes >> 10} KB"
            mhz = f"{report['mhz']:.1f} | {report['wanted_mhz']:.0f}"
            yield f"| {board} | `{design}` | {memory} | {report['seed']} | {mhz} | {use} |"


def main(*, output: Path, built: bool) -> int:
    """``nibblecore boards``."""
    builds = _builds(output)
    if built:
        if not any(builds.values()):
            print(f"no bitstream was built in {output}: make bitstream BOARD=ulx3s", file=sys.stderr)
            return 1
        print("\n".join(_table(builds)))
        return 0
    print(f"{'board':<15} {'device':<14} {'clock':>6}  {'memory':>6}  {'line':>8}  bitstream")
    for name, target in TARGETS.items():
        print("\n".join(_listed(target, builds[name])))
    return 0
