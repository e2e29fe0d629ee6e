"""Golden twin of the instruction checker: what can be said of an instruction before anything is moved."""

from collections.abc import Mapping
from enum import IntEnum

from nibblecore.hdl.config import CambriconqConfig

__all__ = ["ErrorCode", "check"]


class ErrorCode(IntEnum):
    """Why a program was stopped; of several reasons the lowest."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    ZERO_SIZE = 2
    MISALIGNED = 3
    MEMORY_RANGE = 4
    BUFFER_RANGE = 5
    BAD_FORMAT = 6
    TAG_MISMATCH = 7
    NO_TAG = 8
    BUS_READ = 9
    BUS_WRITE = 10
    BANK_CONFLICT = 11


def check(name: str, fields: Mapping[str, int], config: CambriconqConfig, memory_bytes: int) -> ErrorCode:
    """The lowest code that applies to a legal instruction; tags are looked at when it runs."""
    found = {ErrorCode.NONE}
    f = dict(fields)
    rows, cols = f.get("rows", 1), f.get("cols", 1)
    slot = f.get("slot", 1)
    lines = [config.nbin_lines, config.sb_lines]

    def require(condition: bool, code: ErrorCode) -> None:
        if not condition:
            found.add(code)

    def nbout(place: str, *, across: int = cols) -> None:
        row, col = f.get(f"{place}_row", 0), f.get(f"{place}_col", 0)
        last = f[place] + (rows - 1) * row + (across - 1) * col
        require(last < config.nbout_words, ErrorCode.BUFFER_RANGE)

    def memory(at: int, row: int, col: int) -> None:
        require((at | row | col) & 3 == 0, ErrorCode.MISALIGNED)
        require(at + (rows - 1) * row + (cols - 1) * col + 4 <= memory_bytes, ErrorCode.MEMORY_RANGE)

    def packed(at: int, tags: int, vectors: int) -> None:
        require(at % config.line_bytes == 0 and tags % 2 == 0, ErrorCode.MISALIGNED)
        require(at + vectors * slot * config.line_bytes <= memory_bytes, ErrorCode.MEMORY_RANGE)
        require(tags + 2 * vectors <= memory_bytes, ErrorCode.MEMORY_RANGE)

    def buffer(line: int, vectors: int) -> None:
        require(line + vectors * slot <= lines[f["side"]], ErrorCode.BUFFER_RANGE)

    if "rows" in f:
        require(rows > 0 and cols > 0, ErrorCode.ZERO_SIZE)
    if "slot" in f:
        require(1 <= slot <= 4, ErrorCode.BAD_FORMAT)
    across = -(-cols // config.cols) * rows  # vectors of all rows
    if name == "CROSET":
        value = f["value"]
        if f["register"] == 7:
            require(value < 8, ErrorCode.BAD_FORMAT)
        elif f["register"] in (16, 32):
            require(value & ~0xFF1F == 0 and value >> 2 & 3 != 3, ErrorCode.BAD_FORMAT)
        elif f["register"] > 16:
            require(value & 0x8000FF0C == 0 and value >> 16 < 1 << 4 * (value & 3) + 3, ErrorCode.BAD_FORMAT)
    elif name == "SLOAD":
        nbout("dest")
        memory(f["src"], f["src_row"], 4)
    elif name == "SSTORE":
        nbout("src")
        memory(f["dest"], f["dest_row"], 4)
    elif name in ("VLOAD", "VSTORE"):
        require(f["vectors"] > 0, ErrorCode.ZERO_SIZE)
        line, at = ("dest", "src") if name == "VLOAD" else ("src", "dest")
        buffer(f[line], f["vectors"])
        packed(f[at], f[f"{at}_tags"], f["vectors"])
    elif name == "QLOAD":
        memory(f["src"], f["src_row"], f["src_col"])
        buffer(f["dest"], across)
    elif name == "QMOVE":
        nbout("src")
        buffer(f["dest"], across)
    elif name == "QSTORE":
        nbout("src")
        packed(f["dest"], f["dest_tags"], across)
    elif name == "WGSTORE":
        nbout("src")
        for place in ("w", "m", "v"):
            memory(f[place], f["mem_row"], 4)
    elif name in ("MM", "CONV"):
        require(f["vectors"] > 0, ErrorCode.ZERO_SIZE)
        if name == "CONV":
            require(0 not in (f["out_width"], f["stride"], f["kernel_rows"], f["kernel_cols"]), ErrorCode.ZERO_SIZE)
        require(f["dest"] % config.nbout_lanes == 0 and f["dest_row"] % config.nbout_lanes == 0, ErrorCode.MISALIGNED)
        require(f["dest"] + (rows - 1) * f["dest_row"] + cols <= config.nbout_words, ErrorCode.BUFFER_RANGE)
        require(f["group"] in (1, 2, 4) and 1 <= f["a_slot"] <= 4, ErrorCode.BAD_FORMAT)
        require(f["w_slot"] > 0 and f["w_slot"] * f["group"] <= 4, ErrorCode.BAD_FORMAT)
    elif name != "HALT":
        nbout("dest", across=1 if name in ("HADD", "HMUL", "HMAX") else cols)
        for place in ("a", "b", "src"):
            if place in f:
                nbout(place)
    return min(found - {ErrorCode.NONE}, default=ErrorCode.NONE)
