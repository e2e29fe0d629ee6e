"""Folders of build output that are made once and kept, and where they are."""

import fcntl
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CACHE", "CacheError", "cache_folder", "cached", "held", "kept"]

CACHE = "NIBBLECORE_CACHE"
"""The variable of the environment that names the folder."""

_ROOT = Path(__file__).resolve().parents[1]


class CacheError(RuntimeError):
    """Where build output is to be kept nothing can be written; the message says what to do."""


def cache_folder() -> Path:
    """Where build output is kept: the folder that `CACHE` names; without it ``build/`` of the checkout if it can be written, else
    ``nibblecore/`` in the user's cache folder, ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if named := os.environ.get(CACHE):
        return Path(named).expanduser().absolute()
    build = _ROOT / "build"
    if (_ROOT / "pyproject.toml").exists() and os.access(build if build.exists() else _ROOT, os.W_OK | os.X_OK):
        return build
    users = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(users) if os.path.isabs(users) else Path(os.path.expanduser("~/.cache"))) / "nibblecore"


def cached(room: str, name: str) -> Path:
    """The folder `name` in a room of the cache, or, if it is made already, that of a checkout that cannot be written."""
    folder, built = cache_folder() / room / name, _ROOT / "build" / room / name
    return built if not os.environ.get(CACHE) and not folder.exists() and built.exists() else folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Meanwhile `folder`, which need not exist, is this process's alone: another that wants to hold it waits.

    Makes the folders above. Raises `CacheError` where nothing can be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open(folder.with_name(f".{folder.name}.lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise CacheError(f"{error.filename}: {error.strerror}; name a folder for what is built: {CACHE}=/path/to/folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that works on {folder.name}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kept(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, made by ``make(path)`` unless it exists.

    `make` fills the empty folder ``path``, which becomes `folder` once `make` has returned: a half-made one is never there. What it
    leaves beside ``path``, in ``path.parent``, is thrown away, and so is everything when it raises. Of two processes that want the
    same folder one makes it and the other waits. Raises `CacheError` where nothing can be written.
    """
    if folder.exists():
        return folder
    with held(folder):
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as temporary:
                made = Path(temporary, folder.name)
                made.mkdir()
                make(made)
                made.rename(folder)
    return folder
