"""What takes a while says so: on a terminal, to stderr, and nothing elsewhere."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["doing", "ticking"]

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
