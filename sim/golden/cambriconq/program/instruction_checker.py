"""Golden twin of the instruction checker: what can be said of an instruction before anything is moved."""

from collections.abc import Mapping

from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.control.scoreboard import Space, conflict, ranges

from .errors import ErrorCode

__all__ = ["check"]


_LIMITS = {Space.NBOUT: "nbout_words", Space.NBIN: "nbin_lines", Space.SB: "sb_lines"}
_SIZES = ("rows", "cols", "vectors", "out_width", "stride", "kernel_rows", "kernel_cols")
_WORDS = {
    "SLOAD": ("src", "src_row"),
    "SSTORE": ("dest", "dest_row"),
    "QLOAD": ("src", "src_row", "src_col"),
    "WGSTORE": ("w", "m", "v", "mem_row"),
}
_PACKED = {"VLOAD": "src", "VSTORE": "dest", "QSTORE": "dest"}


def check(name: str, fields: Mapping[str, int], config: CambriconqConfig, memory_bytes: int) -> ErrorCode:
    """The lowest code that applies to a legal instruction; tags are looked at when it runs."""
    found = {ErrorCode.NONE}
    f = dict(fields)

    def require(condition: bool, code: ErrorCode) -> None:
        if not condition:
            found.add(code)

    require(all(f[size] > 0 for size in _SIZES if size in f), ErrorCode.ZERO_SIZE)
    require(all(f[place] % 4 == 0 for place in _WORDS.get(name, ())), ErrorCode.MISALIGNED)
    if name in _PACKED:
        place = _PACKED[name]
        require(f[place] % config.line_bytes == 0 and f[f"{place}_tags"] % 2 == 0, ErrorCode.MISALIGNED)
    if "slot" in f:
        require(1 <= f["slot"] <= 4, ErrorCode.BAD_FORMAT)
    if name in ("MM", "CONV"):
        require(f["dest"] % config.nbout_lanes == 0 and f["dest_row"] % config.nbout_lanes == 0, ErrorCode.MISALIGNED)
        require(f["group"] in (1, 2, 4) and 1 <= f["a_slot"] <= 4, ErrorCode.BAD_FORMAT)
        require(f["w_slot"] > 0 and f["w_slot"] * f["group"] <= 4, ErrorCode.BAD_FORMAT)
    if name == "CROSET":
        value = f["value"]
        if f["register"] in (16, 32):
            require(value & ~0xFF1F == 0 and value >> 2 & 3 != 3, ErrorCode.BAD_FORMAT)
        elif f["register"] > 16:
            require(value & 0x8000FF0C == 0 and value >> 16 < 1 << 4 * (value & 3) + 3, ErrorCode.BAD_FORMAT)
    if name == "VTURN":
        source, dest = ranges(name, f, config)
        require(not conflict([source], [dest]), ErrorCode.BAD_FORMAT)
    for touched in ranges(name, f, config):
        if touched.space == Space.MEMORY:
            require(touched.high <= memory_bytes, ErrorCode.MEMORY_RANGE)
        else:
            require(touched.high <= getattr(config, _LIMITS[touched.space]), ErrorCode.BUFFER_RANGE)
    return min(found - {ErrorCode.NONE}, default=ErrorCode.NONE)
