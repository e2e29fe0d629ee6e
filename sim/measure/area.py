"""Cell area of a block or of a whole machine, measured with Yosys: in a chip's cells, or in an FPGA's.

    nibblecore area --config paper --liberty nangate45_typ.lib.gz
    nibblecore area --machine cambriconq --config paper --liberty nangate45_typ.lib.gz
    nibblecore area --config paper paper_eight --block ltoaq.array.wide_pe --liberty nangate45_typ.lib.gz --recipe standard fast
    nibblecore area --device ecp5 --block ltoaq.top boards.block_memory

Every distinct shared module is synthesized once and counted as often as it is placed; everything else is flattened into what
contains it. Memories (`nibblecore.hdl.memory.Memory`) are counted in bits and left out of the area: they become macros.
Without ``--liberty`` generic gates are counted and valued in transistors, four to a NAND2.

The path is the longest combinational path inside any one module as ABC estimates it from the Liberty tables: no wires, no
clock-to-output, no set-up, and none that crosses from one shared module to another. It ranks coding styles; it is no sign-off.

With ``--device`` a block is what a board has of it, and is synthesized alone, flat and with its memories, by the script that makes a board's
bitstream; blocks that a board has beside the machine can be named too.
"""

import gzip
import json
import re
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nibblecore.hdl.boards.board import on_boards
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.hdl.emit.emit import emit_verilog
from nibblecore.sim import outputs
from nibblecore.sim.boards.synthesis import synthesized, wanted
from nibblecore.sim.machines import Config, full_name, machine_of
from nibblecore.sim.progress import ticking
from nibblecore.sim.refusal import Refusal
from tqdm import tqdm

from .blocks import blocks_of, build, numbers

__all__ = ["DEVICES", "RECIPES", "Area", "Liberty", "main", "measure"]

# Yosys' own script for ABC does not come back from merged multiply-accumulate cells of eight products; these do.
_BUFFERED = "topo;buffer,-c,-N,16;topo;stime,-p"
RECIPES = {
    "standard": f"+strash;scorr;dc2;dch,-f;strash;&get,-n;&nf;&put;{_BUFFERED}",
    "compact": f"+strash;scorr;dc2;dch,-f;amap,-m;{_BUFFERED}",
    "fast": "+strash;scorr;dc2;dch,-f;strash;&get,-n;&nf;&put;buffer,-c;topo;upsize;dnsize;topo;stime,-p",
}
"""ABC scripts: "standard" maps as Yosys does by default, "compact" gives up speed for area, "fast" sizes gates for speed.

All bound the fan-out; without that the estimated path of anything larger than a PE is that of its largest unbuffered net.
"""

DEVICES = {"ecp5": "ECP5, Yosys’ `synth_ecp5`"}
"""The FPGAs by name, and how their cells are counted."""

_LOGIC = {"LUT4": "LUT4", "carries": "CCU2C", "LUT memories": "TRELLIS_DPR16X4"}
"""What makes up the logic cells, and Yosys' types of it."""

_YOSYS = "from pyosys import libyosys as ys; ys.Pass.call(ys.Design(), 'script script.ys')"
_GENERIC = "+strash;scorr;dc2;dch,-f;map,-a"
_TRANSISTORS = {
    "NOT": 2,
    "NAND": 4,
    "NOR": 4,
    "AND": 6,
    "OR": 6,
    "ANDNOT": 6,
    "ORNOT": 6,
    "XOR": 12,
    "XNOR": 12,
    "MUX": 12,
    "NMUX": 10,
    "AOI3": 6,
    "OAI3": 6,
    "AOI4": 8,
    "OAI4": 8,
    "BUF": 4,
    "DFF_P": 16,
    "DLATCH_P": 10,
    "DLATCH_N": 10,
}
_ARRAYS = {"ltoaq.array.wide_array", "ltoaq.fused.fused_array", "cambriconq.matrix.pe_array"}
_ARRAY_NOTES = {
    "ltoaq": "The PE array holds the drain, and the FIFOs of the fused scheme.",
    "cambriconq": "The PE array holds two sets of weights in every PE, and the adder trees of its rows.",
}
_NODES = {"nangate45": 45, "sky130": 130, "sg13g2": 130}

LTOAQ_NODE = 28
LTOAQ_SIZE = 32, 32
LTOAQ_AREA = {"decoder": 4419, "FXP2OAQ": 1661, "PE array": 526450}
"""Table II of the LT-OAQ paper, µm², for its array of 32 × 32 PEs."""

CAMBRICONQ_NODE = 45
CAMBRICONQ_SIZE = 64, 64
CAMBRICONQ_AREA = {"functional units": 2.11, "SQU": 0.42, "QBC": 0.09, "NDPO": 0.07}
"""Table VII of the Cambricon-Q paper, mm², for its array of 64 × 64 PEs."""


@dataclass(frozen=True, kw_only=True)
class Liberty:
    """What this tool needs of a Liberty file: areas of its cells, which of them hold state, and the area of the smallest NAND2."""

    path: Path
    areas: dict[str, float]
    sequential: frozenset[str]
    nand2: float

    @classmethod
    def read(cls, path: Path) -> "Liberty":
        """Reads a Liberty file, plain or compressed with gzip. Raises `Refusal`."""
        try:
            text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        except OSError as error:
            raise Refusal("liberty", f"no Liberty file: {error.strerror or error}") from None
        except (UnicodeDecodeError, EOFError, zlib.error):
            raise Refusal("liberty", "is no Liberty file, plain or compressed with gzip") from None
        areas, sequential = {}, set()
        for cell in re.split(r"^\s*cell\s*\(", text, flags=re.M)[1:]:
            name = cell.partition(")")[0].strip().strip('"')
            area = re.search(r"\barea\s*:\s*\"?(\d+\.?\d*(?:[eE][+-]?\d+)?)", cell)
            if area:
                areas[name] = float(area.group(1))
            if re.search(r"\b(ff|latch)\s*\(", cell):
                sequential.add(name)
        if not areas:
            raise Refusal("liberty", "holds no cells with an area: is it a Liberty file?")
        nand2 = [area for name, area in areas.items() if re.search(r"nand2(?!b)", name, re.I) and area > 0]
        if not nand2:
            raise Refusal("liberty", "has no cell called NAND2; areas cannot be given in NAND2 equivalents")
        return cls(path=path, areas=areas, sequential=frozenset(sequential), nand2=min(nand2))

    @property
    def node(self) -> int | None:
        """Feature size in nm, if the file's name tells."""
        return next((node for name, node in _NODES.items() if name in self.path.name), None)


@dataclass(frozen=True, kw_only=True)
class Area:
    """Measured size of one block, memories left out.

    Parameters
    ----------
    block : str
    modules, cells, flip_flops, memory_bits : int
        Distinct modules; cells with every placed copy; those of them that hold state; bits in memories.
    nand2 : float
        Area in units of the smallest NAND2.
    square_microns : float or None
        None without a Liberty file.
    path_ps : float or None
        Longest combinational path inside one module.
    """

    block: str
    modules: int
    cells: int
    flip_flops: int
    memory_bits: int
    nand2: float
    square_microns: float | None
    path_ps: float | None


def measure(component: Any, block: str, *, liberty: Liberty | None = None, recipe: str = "standard") -> Area:
    """Synthesize `component` and count."""
    verilog = emit_verilog(component, "top")
    placed = Counter(re.findall(r"^  (\w+) \w+ \($", verilog, re.M))
    shared = [name for name in re.findall(r"^module (\w+)\(", verilog, re.M) if placed[name] > 1 and not _is_memory(name)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "top.v").write_text(verilog)
        mapping = f"abc -g all -script {_GENERIC}" if liberty is None else f"abc -liberty cells.lib -script {RECIPES[recipe]}"
        if liberty:
            data = liberty.path.read_bytes()
            (folder / "cells.lib").write_bytes(gzip.decompress(data) if liberty.path.suffix == ".gz" else data)
        script = [
            "read_verilog top.v",
            "hierarchy -check -top top",
            "blackbox memory_*",
            *(f"setattr -mod -set keep_hierarchy 1 {module}" for module in shared),
            # A chip has no power-up values, in registers or (left in place by the first removal) in small memories.
            "proc",
            "setattr -unset init w:*",
            "synth -booth -noabc -flatten -top top",
            "setattr -unset init w:*",
            "dfflegalize -cell $_DFF_P_ x",
            *(["dfflibmap -liberty cells.lib"] if liberty else []),
            f"tee -q -o abc.log {mapping}",
            "opt_clean -purge",
            "write_json netlist.json",
        ]
        (folder / "script.ys").write_text("\n".join(script) + "\n")
        run = subprocess.run([sys.executable, "-c", _YOSYS], cwd=folder, capture_output=True, text=True)
        # ABC can stop without a word and take Yosys along.
        if run.returncode or not (folder / "netlist.json").exists():
            logs = [path.read_text() for path in folder.glob("abc.log")] + [run.stdout + run.stderr]
            reasons = [line for log in logs for line in log.splitlines() if re.search(r"error|cannot", line, re.I)]
            raise RuntimeError(f"Yosys or ABC failed on {block} ({run.returncode}): {'; '.join(reasons) or logs[-1][-1000:]}")
        modules = json.loads((folder / "netlist.json").read_text())["modules"]
        delays = [float(value) for value in re.findall(r"\bDelay\s*=\s*([\d.]+) ps", (folder / "abc.log").read_text())]
    cells, memory_bits = _totals(modules, "top")
    unknown = sorted(kind for kind in cells if kind not in (liberty.areas if liberty else _GENERIC_CELLS))
    if unknown:
        raise RuntimeError(f"{block}: cells of unknown area after mapping: {', '.join(unknown)}")
    if liberty:
        microns = sum(count * liberty.areas[kind] for kind, count in cells.items())
        nand2 = microns / liberty.nand2
        state = sum(count for kind, count in cells.items() if kind in liberty.sequential)
    else:
        microns, nand2 = None, sum(count * _GENERIC_CELLS[kind] for kind, count in cells.items()) / 4
        state = sum(count for kind, count in cells.items() if "DFF" in kind or "LATCH" in kind)
    return Area(
        block=block,
        modules=sum(not _is_memory(module) for module in modules),
        cells=cells.total(),
        flip_flops=state,
        memory_bits=memory_bits,
        nand2=nand2,
        square_microns=microns,
        path_ps=max(delays, default=None),
    )


_GENERIC_CELLS = {f"$_{name}_": transistors for name, transistors in _TRANSISTORS.items()}


def _is_memory(module: str) -> bool:
    return re.fullmatch(r"memory_\d+x\d+", module) is not None


def _microns(area: Area) -> float:
    assert area.square_microns is not None
    return area.square_microns


def _totals(modules: dict[str, Any], top: str) -> tuple[Counter[str], int]:
    """Cells by type and memory bits of module `top` with everything below it."""
    cells: Counter[str] = Counter()
    memory_bits = 0
    for kind, count in Counter(cell["type"] for cell in modules[top]["cells"].values()).items():
        if _is_memory(kind):
            depth, width = map(int, kind.removeprefix("memory_").split("x"))
            memory_bits += count * depth * width
        elif kind in modules and "blackbox" not in modules[kind]["attributes"]:
            below, bits = _totals(modules, kind)
            cells.update({name: count * number for name, number in below.items()})
            memory_bits += count * bits
        elif kind != "$scopeinfo":
            cells[kind] += count
    return cells, memory_bits


def contents(config: CambriconqConfig, counts: dict[str, int]) -> dict[str, dict[str, int]]:
    """What of the machine does the work of each unit of Table VII: blocks and their numbers; `counts`: those of the whole machine."""
    adders = numbers(config, inside="cambriconq.matrix.matrix_results")["arith.fp32_add"]

    def once(*blocks: str) -> dict[str, int]:
        return {block: counts[block] for block in blocks}

    return {
        "functional units": {
            **once("cambriconq.matrix.pe_array", "cambriconq.matrix.accumulator", "cambriconq.matrix.dequantizer"),
            "arith.fp32_add": adders,
            **once("cambriconq.vector.sfu"),
        },
        "SQU": once("cambriconq.quantize.squ"),
        "QBC": once("cambriconq.buffers.qbc"),
        "NDPO": once("cambriconq.update.ndpo"),
    }


def _table_ii(areas: dict[str, Area], counts: dict[str, int], node: int) -> list[str]:
    array = next(block for block in counts if block in _ARRAYS)
    ours = {"decoder": "ltoaq.operands.operand_decoder", "FXP2OAQ": "ltoaq.output.quantizer", "PE array": array}
    scale, pes = (node / LTOAQ_NODE) ** 2, LTOAQ_SIZE[0] * LTOAQ_SIZE[1]
    lines = [
        f"Beside the paper (Table II, {LTOAQ_NODE} nm, synthesized for 500 MHz, its areas × ({node}/{LTOAQ_NODE})²):",
        "",
        "| | made of | µm² | % of PE array | Table II, µm² | % of PE array |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]

    def row(name: str, made_of: str, measured: float, paper: float) -> str:
        shares = 100 * measured / _microns(areas[array]), 100 * paper / LTOAQ_AREA["PE array"]
        return f"| {name} | {made_of} | {measured:,.0f} | {shares[0]:.2f} | {paper * scale:,.0f} | {shares[1]:.2f} |"

    for name, block in ours.items():
        if block in areas:
            number = counts[block]
            lines.append(row(name, f"{number} {block}", number * _microns(areas[block]), LTOAQ_AREA[name]))
    return [*lines, row("a PE of the array", "", _microns(areas[array]) / pes, LTOAQ_AREA["PE array"] / pes)]


def _table_vii(areas: dict[str, Area], units: dict[str, dict[str, int]], node: int) -> list[str]:
    scale = (node / CAMBRICONQ_NODE) ** 2
    scaled = "" if node == CAMBRICONQ_NODE else f", its areas × ({node}/{CAMBRICONQ_NODE})²"
    lines = [
        f"Beside the paper (Table VII, {CAMBRICONQ_NODE} nm{scaled}), memories apart:",
        "",
        "| unit | made of | mm² | Table VII, mm² |",
        "| --- | --- | ---: | ---: |",
    ]
    for unit, parts in units.items():
        sizes = {f"{number} {name}": number * _microns(areas[name]) / 1e6 for name, number in parts.items()}
        made_of = "" if len(sizes) > 1 else "".join(sizes)
        lines.append(f"| {unit} | {made_of} | {sum(sizes.values()):.3f} | {CAMBRICONQ_AREA[unit] * scale:.2f} |")
        if not made_of:
            lines += [f"| | {part} | {size:.3f} | |" for part, size in sizes.items()]
    return lines


def report(
    areas: list[Area], *, liberty: Liberty | None, recipe: str, config: Config, node: int | None, counts: dict[str, int]
) -> str:
    """The measurements as Markdown; `counts`: how many of a block the machine holds, as far as that is known."""
    array = next((area for area in areas if area.block in _ARRAYS), None)
    columns = ["block", *_columns(liberty)]
    if array:
        columns += ["number", "all, % of PE array"]
    rows = []
    for area in areas:
        cells = [area.block, *_cells(area)]
        if array:
            number = counts[area.block]
            cells += [f"{number:,}", f"{100 * number * area.nand2 / array.nand2:.2f}"]
        rows.append(cells)
    lines = [
        f"Configuration `{full_name(config)}`; {_source(liberty, [recipe])}.",
        "",
        *_table(columns, rows),
        *_notes(areas, config),
    ]
    if not (liberty and array and node):
        return "\n".join(lines) + "\n"
    measured = {area.block: area for area in areas}
    size = config.rows, config.cols
    if isinstance(config, CambriconqConfig):
        units = {unit: parts for unit, parts in contents(config, counts).items() if parts.keys() <= measured.keys()}
        lines += ["", *_table_vii(measured, units, node)] if units and size == CAMBRICONQ_SIZE else []
    elif size == LTOAQ_SIZE:
        lines += ["", *_table_ii(measured, counts, node)]
    return "\n".join(lines) + "\n"


def side_by_side(areas: list[tuple[Config, str, Area]], *, liberty: Liberty | None) -> str:
    """Measurements of several configurations or recipes as Markdown, those of a block together."""
    recipes = list(dict.fromkeys(recipe for _, recipe, _ in areas))
    several = len({full_name(config) for config, _, _ in areas}) > 1, len(recipes) > 1
    marks = [title for title, shown in zip(("configuration", "recipe"), several, strict=True) if shown]
    blocks = list(dict.fromkeys(area.block for _, _, area in areas))
    rows = [
        [
            area.block,
            *(text for text, shown in zip((f"`{full_name(config)}`", recipe), several, strict=True) if shown),
            *_cells(area),
        ]
        for config, recipe, area in sorted(areas, key=lambda measured: blocks.index(measured[2].block))
    ]
    head = f"{_configurations([config for config, _, _ in areas])}; {_source(liberty, recipes)}."
    notes = _notes([area for _, _, area in areas], areas[0][0])
    return "\n".join([head, "", *_table(["block", *marks, *_columns(liberty)], rows, 1 + len(marks)), *notes]) + "\n"


def on_device(device: str, found: list[tuple[Config, str, dict[str, int]]]) -> str:
    """Blocks and their cells by type as Markdown; several configurations' of a block together."""
    configs = [config for config, _, _ in found]
    marks = ["configuration"] if len(set(configs)) > 1 else []
    blocks = list(dict.fromkeys(block for _, block, _ in found))
    rows = []
    for config, block, cells in sorted(found, key=lambda measured: blocks.index(measured[1])):
        numbers_of = [*(cells.get(kind, 0) for kind in _LOGIC.values()), *wanted(cells).values()]
        rows.append([block, *(f"`{full_name(config)}`" for _ in marks), *(_or_nothing(number) for number in numbers_of)])
    head = f"{_configurations(configs)}, as on boards; {DEVICES[device]}."
    notes = "A carry counts as two logic cells, a LUT memory, of 16 × 4 bits, as six."
    return "\n".join([head, "", *_table(["block", *marks, *_LOGIC, *wanted({})], rows, 1 + len(marks)), "", notes]) + "\n"


def _configurations(configs: list[Config]) -> str:
    names = list(dict.fromkeys(f"`{full_name(config)}`" for config in configs))
    return f"Configuration{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _source(liberty: Liberty | None, recipes: list[str]) -> str:
    scripts = f"ABC recipe{'s' if len(recipes) > 1 else ''} {', '.join(f'“{recipe}”' for recipe in recipes)}"
    return f"{liberty.path.name}, {scripts}" if liberty else "generic gates, transistors ÷ 4"


def _columns(liberty: Liberty | None) -> list[str]:
    return ["cells", "flip-flops", *(["µm²", "path, ps"] if liberty else ["NAND2 eq."]), "memory, bits"]


def _cells(area: Area) -> list[str]:
    size = [f"{area.nand2:,.0f}"] if area.square_microns is None else [f"{area.square_microns:,.0f}", _or_nothing(area.path_ps)]
    return [f"{area.cells:,}", f"{area.flip_flops:,}", *size, _or_nothing(area.memory_bits)]


def _table(columns: list[str], rows: list[list[str]], texts: int = 1) -> list[str]:
    """Lines of a table whose first `texts` columns are no numbers."""
    rule = "| --- " * texts + "| ---: " * (len(columns) - texts) + "|"
    return [f"| {' | '.join(columns)} |", rule, *(f"| {' | '.join(cells)} |" for cells in rows)]


def _notes(areas: list[Area], config: Config) -> list[str]:
    notes = ["Memories stand in bits and are in no area."] if any(area.memory_bits for area in areas) else []
    notes += [_ARRAY_NOTES[machine_of(config)]] if any(area.block in _ARRAYS for area in areas) else []
    return ["", " ".join(notes)] if notes else []


def _or_nothing(number: float | None) -> str:
    return f"{number:,.0f}" if number else ""


def main(
    *,
    config: list[Config],
    device: str | None,
    liberty: Path | None,
    block: list[str] | None,
    recipe: list[str],
    node: int | None,
    markdown: Path | None,
) -> int:
    """``nibblecore area``."""
    if device:
        gates = {"liberty": liberty, "recipe": recipe != [*RECIPES][:1], "node": node}
        if given := next((name for name, value in gates.items() if value), None):
            raise Refusal(given, "is of a chip's gates, which an FPGA does not have: leave it or the DEVICE out")
        config = [on_boards(machine) for machine in config]
    library = Liberty.read(liberty) if liberty else None
    if len(recipe) > 1 and not library:
        raise Refusal("recipe", "only a cell library is mapped in several ways: LIBERTY=")
    todo = []
    for machine in config:
        known = blocks_of(machine, board=bool(device))
        names = block or list(known)
        if missing := [name for name in names if name not in known]:
            raise Refusal("block", f"{full_name(machine)} has no {', '.join(missing)}; it has {', '.join(known)}")
        todo += [(machine, name, script) for name in names for script in recipe]
    measured = []
    found = []
    with tqdm(total=len(todo), unit="block", disable=None, leave=False) as bar, ticking(bar):
        for machine, name, script in todo:
            bar.set_postfix_str(name)
            component = build(name, machine)
            if device:
                found.append((machine, name, synthesized(component)))
            else:
                measured.append((machine, script, measure(component, name, liberty=library, recipe=script)))
            bar.update()
    if device:
        text = on_device(device, found)
    elif len(config) > 1 or len(recipe) > 1:
        text = side_by_side(measured, liberty=library)
    else:
        areas = [area for _, _, area in measured]
        counts = numbers(config[0]) if any(area.block in _ARRAYS for area in areas) else {}
        node = node or (library.node if library else None)
        text = report(areas, liberty=library, recipe=recipe[0], config=config[0], node=node, counts=counts)
    print(text, end="")
    if markdown:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        outputs.write(markdown, text.encode())
    return 0
