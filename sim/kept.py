"""Folders of build output that are made once and kept."""

import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["kept"]


def kept(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, made by ``make(path)`` unless it exists.

    `make` fills the empty folder ``path``, which becomes `folder` once `make` has returned: a half-made one is never there. What it
    leaves beside ``path``, in ``path.parent``, is thrown away, and so is everything when it raises. Of two processes that want the
    same folder one makes it and the other waits.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as temporary:
                made = Path(temporary, folder.name)
                made.mkdir()
                make(made)
                made.rename(folder)
    return folder
