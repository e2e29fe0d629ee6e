"""The boards, and what was last built for them."""

import json
from pathlib import Path

from nibblecore.hdl.boards.targets import TARGETS

__all__ = ["main"]


def main(*, output: Path) -> int:
    """``nibblecore boards``."""
    print(f"{'board':<15} {'device':<14} {'clock':>6}  {'memory':>6}  {'line':>8}  bitstream")
    for target in TARGETS.values():
        built = [json.loads(path.read_text()) | {"of": path.stem} for path in sorted(output.glob(f"{target.name}_*.json"))]
        made_by = "prepared: make board-project" if target.vendor else "make bitstream"
        print(
            f"{target.name:<15} {target.device:<14} {target.clock_hz // 1_000_000:>2} MHz  {target.memory_bytes >> 10:>3} KB"
            f"  {target.baud // 1000:>4} kBd  {'built here' if built else made_by}"
        )
        for report in built:
            use = ", ".join(f"{used:,} {name}" for name, (used, _) in report["use"].items())
            print(f"  {report['of'].removeprefix(target.name + '_')}: {report['mhz']:.1f} MHz; {use}")
    return 0
