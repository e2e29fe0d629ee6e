"""The files that users name for what a verb writes."""

import os
from pathlib import Path

__all__ = ["write"]


def write(path: Path, content: bytes) -> None:
    """All of `content` to `path`, or nothing: what lay there stays if there is no room. Raises OSError that names `path`."""
    target = Path(os.path.realpath(path))
    # In the place of a device or a pipe there can be no other file.
    direct = target.exists() and not target.is_file()
    made = target if direct else target.with_name(f".{target.name}.{os.getpid()}")
    try:
        made.write_bytes(content)
        if not direct:
            made.replace(target)
    except OSError as error:
        if not direct:
            made.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
