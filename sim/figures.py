"""The parts of the manual that a measurement prints.

Such a part of a page stands between ``<!-- measured: nibblecore VERB … -->`` and ``<!-- end -->`` and is what the command printed, a table or
text. ``nibblecore figures`` runs the commands again, each as typed there, and puts what they print in place of what stands there. The word
LIBERTY in a command is the cell library of ``--liberty``.

A page says the command and nothing of how the part looks, so that no figure can be other than what its command prints.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["commands", "main"]

ROOT = Path(__file__).resolve().parent.parent

_PART = re.compile(r"<!-- measured: nibblecore (.+?) -->\n(.*?)<!-- end -->", re.S)
_LIBERTY = "LIBERTY"


def _pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> Iterator[tuple[Path, list[str], str]]:
    """Every measured part: its page, the words behind ``nibblecore``, and what stands there."""
    for page in _pages():
        for command, text in _PART.findall(page.read_text()):
            yield page, shlex.split(command), text


def _shown(output: str) -> str:
    """Markdown as it is; text as text."""
    output = output.lstrip("\n").rstrip()
    return output + "\n" if re.search(r"^\| ---", output, re.M) else f"```\n{output}\n```\n"


def _put(page: Path, words: list[str], output: str) -> None:
    """`output` in the place of the part, or the page as it was: never half a page."""

    def part(match: re.Match[str]) -> str:
        if shlex.split(match[1]) != words:
            return match[0]
        return f"<!-- measured: nibblecore {match[1]} -->\n{_shown(output)}<!-- end -->"

    text = _PART.sub(part, page.read_text())
    with tempfile.NamedTemporaryFile("w", dir=page.parent, prefix=".figures-", delete=False) as file:
        file.write(text)
    os.chmod(file.name, page.stat().st_mode)
    os.replace(file.name, page)


def main(*, only: str | None, liberty: Path | None, list: bool) -> int:
    """``nibblecore figures``. Raises FileNotFoundError where there is no manual."""
    if not (ROOT / "docs").is_dir():
        raise FileNotFoundError(f"there is no manual in {ROOT}; figures works on nibblecore's repository")
    parts = [(page, words) for page, words, _ in commands() if not only or only in f"{page.name} {shlex.join(words)}"]
    if not parts:
        print(f"no measured part of the manual has {only!r} in its page's name or its command (--list shows all)", file=sys.stderr)
        return 1
    failed = 0
    for number, (page, words) in enumerate(parts, 1):
        typed = f"[{number}/{len(parts)}] {page.relative_to(ROOT)}: nibblecore {shlex.join(words)}"
        if list:
            print(typed)
            continue
        if _LIBERTY in words and liberty is None:
            print(f"{typed}: left as it is, needs LIBERTY=", flush=True)
            continue
        print(typed, flush=True)
        given = [str(liberty.resolve()) if word == _LIBERTY and liberty else word for word in words]
        began = time.monotonic()
        run = subprocess.run([sys.executable, "-m", "nibblecore.sim.cli", *given], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        if run.returncode or not run.stdout.strip():
            print(f"  ended with status {run.returncode}; the page is left as it is", file=sys.stderr)
            failed += 1
            continue
        _put(page, words, run.stdout)
        print(f"  wrote it after {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0
