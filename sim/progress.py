"""What takes a while says so: on a terminal, to stderr, and nothing elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

__all__ = ["building", "doing", "ticking"]

_SECONDS = 1.0


@contextmanager
def ticking(bar: Any) -> Iterator[None]:
    """Meanwhile a bar of tqdm shows how the time goes by, even if nothing else happens."""
    if bar.disable:
        yield
        return
    over = threading.Event()

    def tick() -> None:
        while not over.wait(_SECONDS):
            bar.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Meanwhile `what` and the time are shown; without tqdm, which the bare package does not bring, nothing is."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        yield
        return
    with tqdm(desc=what, bar_format="{desc} … {elapsed}", disable=None, leave=False) as bar, ticking(bar):
        yield


@contextmanager
def building(what: str) -> Iterator[None]:
    """A line that stays says what was built and how long it took; elsewhere than on a terminal it begins before the work."""
    started = time.monotonic()
    line = f"building {what} (cached next time)"
    shown = sys.stderr.isatty() and find_spec("tqdm") is not None
    if not shown:
        print(f"{line} … ", end="", file=sys.stderr, flush=True)
    with doing(line):
        yield
    print(f"{f'{line} … ' * shown}{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
