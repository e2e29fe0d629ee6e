"""What `make test` leaves out: with ``LONG=1`` everything runs, `make regress` and `make formal` aside."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

FIRST_SIZE_ONLY = ("cambriconq",)
"""Folders whose benches run at the first of their sizes only."""

LONG_ONLY = ("test_eight_lanes",)
"""Tests that build a whole machine of which `make test` runs the parts."""


def pytest_collection_modifyitems(config, items):
    if os.environ.get("LONG") == "1":
        return
    seen, kept, left_out = set(), [], []
    for item in items:
        # A bench is the test that has the name of its file.
        is_bench = item.path.parent.name in FIRST_SIZE_ONLY and getattr(item, "originalname", None) == item.path.stem
        repeats = is_bench and (item.path, item.originalname) in seen
        if is_bench:
            seen.add((item.path, item.originalname))
        long_only = getattr(item, "originalname", None) in LONG_ONLY
        (left_out if repeats or long_only else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
