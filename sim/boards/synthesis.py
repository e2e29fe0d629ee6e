"""What a design takes of an ECP5, as Yosys counts it."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from .tools import yosys

__all__ = ["COUNT", "EITHER_VALUE", "SCRIPT", "USE", "counted", "synthesized", "wanted"]

EITHER_VALUE = "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:CLK_ENABLE=1 %i"
"""For Yosys: reading what is being written gives either value, as of `Memory`. Amaranth cannot say so, and registers would be added to give
the old one."""

USE = "use.json"
"""The file of a synthesis' counts of cells."""

COUNT = f"tee -q -o {USE} stat -json"
"""For Yosys, after synthesis: write them."""

SCRIPT = ("read_rtlil top.il", EITHER_VALUE, "synth_ecp5 -top top", COUNT)
"""What Yosys does with a board's design before it writes the netlist."""

_FOUND = {"flip-flops": "TRELLIS_FF", "multipliers": "MULT18X18D", "block RAMs": "DP16KD"}
_LOGIC = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6}
"""In logic cells; nextpnr adds some."""


def counted(folder: Path) -> dict[str, int]:
    """Cells of a design by their types, from the file `USE` in `folder`."""
    cells: dict[str, int] = json.loads((folder / USE).read_text())["design"]["num_cells_by_type"]
    return cells


def wanted(cells: Mapping[str, int]) -> dict[str, int]:
    """What a netlist of these cells takes of its device at least: logic cells, flip-flops, multipliers and block RAMs."""
    logic = sum(size * cells.get(name, 0) for name, size in _LOGIC.items())
    return {"logic cells": logic} | {ours: cells.get(name, 0) for ours, name in _FOUND.items()}


def synthesized(component: Any) -> dict[str, int]:
    """Cells of a component by their types, by the script of a board's design. Raises `ToolError`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "top.il").write_text(rtlil.convert(component, name="top", emit_src=False))
        (folder / "top.ys").write_text("\n".join(SCRIPT) + "\n")
        yosys("top.ys", folder, folder / "log")
        return counted(folder)
