"""What `make test` leaves out.

Benches of Cambricon-Q run at the first of their sizes only, and eight lanes of LT-OAQ not at all, unless ``LONG=1``. ``ONLY=ltoaq``
or ``ONLY=cambriconq`` leaves out the other machine's tests: those below its folders, and those that name it.
"""

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))

MACHINES = ("ltoaq", "cambriconq")

FIRST_SIZE_ONLY = ("cambriconq",)
"""Wings whose benches run at the first of their sizes only."""

LONG_ONLY = ("eight_lanes", "real_bitstream", "two_wires", "cambriconq_in_sdram")
"""Words in the names of tests left out: of the configuration with eight lanes the array is tested, not the rest again; a bitstream takes
long, and so do a line bit by bit and a second board for the same chip."""


def pytest_configure(config: pytest.Config) -> None:
    only = os.environ.get("ONLY")
    if only and only not in MACHINES:
        raise pytest.UsageError(f"MACHINE={only}: there is no such machine; there are {' and '.join(MACHINES)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    long, only = os.environ.get("LONG") == "1", os.environ.get("ONLY")
    other = set(MACHINES) - {only} if only else set()
    seen: set[tuple[Path, str | None]] = set()
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        name = getattr(item, "originalname", None)
        # A bench is the test that has the name of its file.
        room = item.path.relative_to(TESTS).parts[0]
        is_bench = room in FIRST_SIZE_ONLY and name == item.path.stem
        repeats = is_bench and (item.path, name) in seen
        if is_bench:
            seen.add((item.path, name))
        skipped = not long and (repeats or any(word in item.nodeid for word in LONG_ONLY))
        (left_out if skipped or any(machine in item.nodeid for machine in other) else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
