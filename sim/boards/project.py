"""A board's project for the tools of its vendor."""

import shutil
from pathlib import Path

from nibblecore.hdl.boards.targets import TARGETS
from nibblecore.sim.machines import Config, full_name
from nibblecore.sim.progress import doing

from .design import plan, platform_of

__all__ = ["main"]


def main(*, board: str, config: Config, output: Path) -> int:
    """``nibblecore board-project``."""
    target = TARGETS[board]
    name = f"{board}_{full_name(config)}"
    platform = platform_of(target)
    with doing(f"writing the design of {name}"):
        files = plan(target, platform, config)
    folder, unfinished = output / name, output / f".{name}.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for file, text in files.items():
        (unfinished / file).write_text(text)
    (unfinished / "build_top.sh").chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    print(f"wrote {folder}: prepared for {platform.toolchain}, not built here; build it with build_top.sh (or .bat) in that folder")
    return 0
