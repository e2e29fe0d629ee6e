"""Golden twin of the instruction checker: what can be said of an instruction before anything is moved."""

from collections.abc import Mapping

from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.control.scoreboard import Space, conflict, ranges

from .errors import ErrorCode

__all__ = ["check", "conditions"]


_LIMITS = {Space.NBOUT: "nbout_words", Space.NBIN: "nbin_lines", Space.SB: "sb_lines"}
_SIZES = ("rows", "cols", "vectors", "out_width", "stride", "kernel_rows", "kernel_cols")
_WORDS = {
    "SLOAD": ("src", "src_row"),
    "SSTORE": ("dest", "dest_row"),
    "QLOAD": ("src", "src_row", "src_col"),
    "WGSTORE": ("w", "m", "v", "mem_row"),
}
_PACKED = {"VLOAD": "src", "VSTORE": "dest", "QSTORE": "dest"}


def conditions(
    name: str, fields: Mapping[str, int], config: CambriconqConfig, memory_bytes: int
) -> dict[str, tuple[ErrorCode, bool]]:
    """Each condition that the instruction is under, by name: the code it is refused with, and whether it is met."""
    found: dict[str, tuple[ErrorCode, bool]] = {}
    f = dict(fields)

    def require(code: ErrorCode, name: str, met: bool) -> None:
        found[name] = code, met

    for size in _SIZES:
        if size in f:
            require(ErrorCode.ZERO_SIZE, f"{size} zero", f[size] > 0)
    for place in _WORDS.get(name, ()):
        require(ErrorCode.MISALIGNED, f"{place} askew", f[place] % 4 == 0)
    if name in _PACKED:
        place = _PACKED[name]
        require(ErrorCode.MISALIGNED, f"{place} askew", f[place] % config.line_bytes == 0)
        require(ErrorCode.MISALIGNED, f"{place}_tags askew", f[f"{place}_tags"] % 2 == 0)
    for slot in ("slot", "a_slot", "w_slot"):
        if slot in f:
            require(ErrorCode.BAD_FORMAT, f"{slot} zero", f[slot] > 0)
            require(ErrorCode.BAD_FORMAT, f"{slot} high", f[slot] * (f["group"] if slot == "w_slot" else 1) <= 4)
    if name in ("MM", "CONV"):
        for place in ("dest", "dest_row"):
            require(ErrorCode.MISALIGNED, f"{place} askew", f[place] % config.nbout_lanes == 0)
        require(ErrorCode.BAD_FORMAT, "group odd", f["group"] in (1, 2, 4))
    if name == "CROSET":
        value, settings, candidate = f["value"], f["register"] in (16, 32), f["register"] > 16 and f["register"] != 32
        require(ErrorCode.BAD_FORMAT, "settings reserved", not (settings and value & ~0xFF1F))
        require(ErrorCode.BAD_FORMAT, "metric high", not (settings and value >> 2 & 3 == 3))
        require(ErrorCode.BAD_FORMAT, "candidate reserved", not (candidate and value & 0x8000FF0C))
        clip = value >> 16 & 0x7FFF
        require(ErrorCode.BAD_FORMAT, "clip high", not candidate or clip < 1 << 4 * (value & 3) + 3)
    if name == "VTURN":
        source, dest = ranges(name, f, config)
        require(ErrorCode.BAD_FORMAT, "meets itself", not conflict([source], [dest]))
    for touched in ranges(name, f, config):
        if touched.space == Space.MEMORY:
            require(ErrorCode.MEMORY_RANGE, f"{touched.place} beyond", touched.high <= memory_bytes)
        else:
            require(ErrorCode.BUFFER_RANGE, f"{touched.place} beyond", touched.high <= getattr(config, _LIMITS[touched.space]))
    return found


def check(name: str, fields: Mapping[str, int], config: CambriconqConfig, memory_bytes: int) -> ErrorCode:
    """The lowest code that applies to a legal instruction; tags are looked at when it runs."""
    found = conditions(name, fields, config, memory_bytes)
    return min((code for code, met in found.values() if not met), default=ErrorCode.NONE)
