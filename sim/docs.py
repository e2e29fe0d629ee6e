"""The parts of the manual that come from code.

``nibblecore docs`` writes them, ``--check`` only says which are out of step. A generated part of a page stands
between ``<!-- generated: name -->`` and ``<!-- end -->``.
"""

import ast
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nibblecore.hdl.cambriconq import registers as cambriconq_registers
from nibblecore.hdl.cambriconq.program import errors as cambriconq_errors
from nibblecore.hdl.cambriconq.program import isa
from nibblecore.hdl.config import CAMBRICONQ, FPGA, PAPER, TINY, DramConfig
from nibblecore.hdl.link import protocol as link
from nibblecore.hdl.ltoaq import registers
from nibblecore.hdl.ltoaq.command import errors as ltoaq_errors

__all__ = ["ROOMS", "block_names", "main", "page_of", "pages", "room"]

ROOT = Path(__file__).resolve().parent.parent

ROOMS = {
    "golden twin": "sim/golden/{folder}/{name}.py",
    "proof": "formal/{folder}/{name}.py",
    "test": "tests/{folder}/test_{name}.py",
}
"""Where the other wings keep what belongs to the block ``hdl/{folder}/{name}.py``."""

_PARAMETERS = {
    "rows": "rows of processing elements",
    "cols": "columns of processing elements",
    "lanes": "4-bit products of a processing element in a cycle: 4 or 8",
    "tile": "edge of a storage tile",
    "bus_bytes": "width of the AXI4 data bus",
    "bank_words": "words of an operand bank, both halves",
    "run_bits": "bits of a run length",
    "runs_per_cycle": "run lengths coded or decoded in a cycle",
    "queue_depth": "commands in the queue",
}

_CAMBRICONQ_PARAMETERS = {
    "rows": ("rows N of the PE array, an accumulator each", "8 to 128"),
    "cols": ("columns M of the PE array, values of a vector; the bus has M/2 bytes", "16 to 64, at most 2 · `rows`"),
    "nbin_bytes": ("NBin, lines of M/2 bytes", "at least 64 and 2 · `cols`"),
    "sb_bytes": ("SB, lines of M/2 bytes", "at least 64 and 2 · `cols`"),
    "nbout_bytes": ("NBout, FP32 words, `rows`/4 in a row of it", "at least 64 and 4 · `rows`"),
    "vector_lanes": ("elements that vector instructions take at a time where they are neighbours", "a power of two up to `rows`/4"),
}
_DRAM_PARAMETERS = {
    "banks": ("banks", "at least 8"),
    "rows": ("rows of a bank", "at least 2"),
    "columns": ("32-bit words of a row", "at least 2; `banks` · `rows` · `columns` at most 2^30"),
    "rcd": ("cycles from ACTIVATE to the first READ or WRITE", "at least 2"),
    "rp": ("cycles from PRECHARGE to ACTIVATE", "at least 2"),
    "ras": ("cycles from ACTIVATE to PRECHARGE", "at least 2"),
    "wr": ("cycles from WRITE to PRECHARGE", "at least 2"),
}


def block_names() -> list[str]:
    """Every module of the hardware that defines a component: ``"ltoaq/operands/decoder"``."""
    names = []
    for path in sorted((ROOT / "hdl").rglob("*.py")):
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        if any(ast.unparse(base).endswith("Component") for node in classes for base in node.bases):
            names.append(str(path.relative_to(ROOT / "hdl").with_suffix("")))
    return names


def page_of(block: str) -> Path | None:
    """The page about a block: the one of its name, else the one of its machine whose title names it, if there is one."""
    pages = ROOT / "docs" / "blocks"
    own = pages / f"{block}.md"
    if own.exists():
        return own
    for page in sorted((pages / Path(block).parts[0]).rglob("*.md")):
        named = {Path(name).stem for name in re.findall(r"`([^`]+)`", page.read_text().split("\n", 1)[0])}
        if Path(block).name in named:
            return page
    return None


def room(block: str, kind: str) -> Path:
    """Where `kind`, a key of `ROOMS`, of a block is kept if it has one."""
    path = Path(block)
    return ROOT / ROOMS[kind].format(folder=path.parent, name=path.name)


def _blocks(beside: Path) -> str:
    """The table of blocks; links are relative to the page `beside`."""

    def link(text: str, target: Path | None) -> str:
        if target is None or not target.exists():
            return "–"
        return f"[{text}]({os.path.relpath(target, beside.parent)})"

    lines = ["| block | page | golden twin | proof | test |", "| --- | --- | --- | --- | --- |"]
    for name in block_names():
        cells = [link(f"`{name}`", ROOT / "hdl" / f"{name}.py"), link("page", page_of(name))]
        cells += [link(text, room(name, kind)) for text, kind in (("twin", "golden twin"), ("proof", "proof"), ("test", "test"))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _parameters(_: Path) -> str:
    configs = (TINY, FPGA, PAPER)
    lines = [f"| parameter | {' | '.join(f'`{config.name}`' for config in configs)} | |", "| --- " * (len(configs) + 2) + "|"]
    for name, meaning in _PARAMETERS.items():
        lines.append(f"| `{name}` | {' | '.join(str(getattr(config, name)) for config in configs)} | {meaning} |")
    return "\n".join(lines)


def _cambriconq_parameters(_: Path) -> str:
    configs = [CAMBRICONQ[name] for name in ("tiny", "fpga", "paper")]
    lines = [
        f"| parameter | {' | '.join(f'`{config.name}`' for config in configs)} | | range |",
        "| --- " * (len(configs) + 3) + "|",
    ]
    for name, (meaning, limits) in _CAMBRICONQ_PARAMETERS.items():
        values = " | ".join(f"{getattr(config, name):,}" for config in configs)
        lines.append(f"| `{name}` | {values} | {meaning} | {limits} |")
    same = "the defaults below"
    assert all(config.dram == DramConfig() for config in configs)
    engine = "the engine beside the memory and its banks | a `DramConfig`, or None in `<size>_bus`"
    lines.append(f"| `dram` | {' | '.join(same for _ in configs)} | {engine} |")
    return "\n".join(lines)


def _dram_parameters(_: Path) -> str:
    lines = ["| parameter | default | | range |", "| --- " * 4 + "|"]
    for name, (meaning, limits) in _DRAM_PARAMETERS.items():
        lines.append(f"| `{name}` | {getattr(DramConfig(), name):,} | {meaning} | {limits} |")
    return "\n".join(lines)


def _errors(codes: Iterable[Any]) -> Callable[[Path], str]:
    """The table of an `ErrorCode`."""
    lines = ["| code | name | cause | what to do |", "| --- " * 4 + "|"]
    lines += [f"| {int(code)} | {code.name} | {code.cause} | {code.remedy} |" for code in codes]
    return lambda _: "\n".join(lines)


def _link(_: Path) -> str:
    lines = ["| opcode | command | operands, least significant byte first | answer |", "| --- " * 4 + "|"]
    for code in link.Opcode:
        operands = ", ".join(f"{name} ({size})" for name, size in code.operands) or "–"
        lines.append(f"| {int(code)} | {code.name} | {operands} | {code.answer} |")
    lines += ["", "| outcome | name | meaning |", "| --- " * 3 + "|"]
    return "\n".join(lines + [f"| {int(code)} | {code.name} | {code.meaning} |" for code in link.Outcome])


_PARTS = {
    "blocks": _blocks,
    "parameters": _parameters,
    "cambriconq_parameters": _cambriconq_parameters,
    "dram_parameters": _dram_parameters,
    "ltoaq_errors": _errors(ltoaq_errors.ErrorCode),
    "link": _link,
    "cambriconq_errors": _errors(cambriconq_errors.ErrorCode),
}


def pages() -> dict[Path, str]:
    """Every page with a generated part, as it should be."""
    result = {
        ROOT / "docs" / "ltoaq-registers.md": registers.page(),
        ROOT / "docs" / "cambriconq-isa.md": isa.page(),
        ROOT / "docs" / "cambriconq-registers.md": cambriconq_registers.page(),
    }
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text()
        for name in re.findall(r"<!-- generated: (\w+) -->", text):
            if name not in _PARTS:
                raise ValueError(f"{path.relative_to(ROOT)}: nothing generates {name!r}")
            part = re.compile(rf"(?<=<!-- generated: {name} -->\n).*?(?=<!-- end -->)", re.S)
            text = part.sub((_PARTS[name](path) + "\n").replace("\\", r"\\"), text)
            result[path] = text
    return result


def main(*, check: bool) -> int:
    """``nibblecore docs``. Raises FileNotFoundError where there is no manual."""
    if not (ROOT / "docs").is_dir():
        raise FileNotFoundError(f"there is no manual in {ROOT}; docs works on nibblecore's repository")
    stale = {path: text for path, text in pages().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        print(f"{'out of step' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text)
    return 1 if check and stale else 0
