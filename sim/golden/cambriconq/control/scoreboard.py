"""Golden twin of the scoreboard: what an instruction touches, who carries it out, and what it must wait for."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from nibblecore.hdl.config import CambriconqConfig

__all__ = ["Lane", "Range", "Space", "conflict", "lane_of", "ranges"]


class Lane(IntEnum):
    """Instructions of one lane run one after the other, those of different lanes side by side."""

    LOAD = 0
    STORE = 1
    COMPUTE = 2


class Space(IntEnum):
    """Where a place is: memory counts bytes, NBout FP32 words, NBin and SB lines."""

    MEMORY = 0
    NBOUT = 1
    NBIN = 2
    SB = 3


class Range(NamedTuple):
    """All that lies between the first and the last element of a place, an instruction's field of that name; `high` is one beyond."""

    space: Space
    low: int
    high: int
    write: bool = False
    place: str = ""


_LANES = {
    "SLOAD": Lane.LOAD,
    "VLOAD": Lane.LOAD,
    "QLOAD": Lane.LOAD,
    "SSTORE": Lane.STORE,
    "VSTORE": Lane.STORE,
    "QSTORE": Lane.STORE,
    "QMOVE": Lane.STORE,
    "VTURN": Lane.STORE,
    "WGSTORE": Lane.STORE,
}


def lane_of(name: str) -> Lane:
    """The lane of an instruction other than HALT and CROSET."""
    return _LANES.get(name, Lane.COMPUTE)


def conflict(first: Iterable[Range], second: Iterable[Range]) -> bool:
    """Whether two instructions must keep their order."""
    second = list(second)
    return any(a.space == b.space and a.low < b.high and b.low < a.high and (a.write or b.write) for a in first for b in second)


def ranges(name: str, fields: Mapping[str, int], config: CambriconqConfig) -> list[Range]:
    """What a legal instruction with sizes other than 0 reads and writes; of a window's image all of NBin."""
    f = dict(fields)
    rows, cols = f.get("rows", 1), f.get("cols", 1)
    slot, line = f.get("slot", 1), config.line_bytes
    across = -(-cols // config.cols)  # vectors of a row

    def side(of: str = "side") -> Space:
        return (Space.NBIN, Space.SB)[f[of]]

    def nbout(place: str, *, write: bool = False, wide: int = cols) -> Range:
        last = f[place] + (rows - 1) * f.get(f"{place}_row", 0) + (wide - 1) * f.get(f"{place}_col", 1)
        return Range(Space.NBOUT, f[place], last + 1, write, place)

    def words(place: str, row: int, col: int = 4, *, write: bool = False) -> Range:
        return Range(Space.MEMORY, f[place], f[place] + (rows - 1) * row + (cols - 1) * col + 4, write, place)

    def packed(place: str, vectors: int, *, write: bool = False) -> list[Range]:
        sizes = {place: vectors * slot * line, f"{place}_tags": 2 * vectors}
        return [Range(Space.MEMORY, f[name], f[name] + size, write, name) for name, size in sizes.items()]

    def slots(place: str, vectors: int, *, write: bool = False) -> Range:
        return Range(side(), f[place], f[place] + vectors * slot, write, place)

    if name in ("HALT", "CROSET"):
        return []
    if name == "SLOAD":
        return [nbout("dest", write=True), words("src", f["src_row"])]
    if name == "SSTORE":
        return [nbout("src"), words("dest", f["dest_row"], write=True)]
    if name == "VLOAD":
        return [slots("dest", f["vectors"], write=True), *packed("src", f["vectors"])]
    if name == "VSTORE":
        return [slots("src", f["vectors"]), *packed("dest", f["vectors"], write=True)]
    if name == "QLOAD":
        return [words("src", f["src_row"], f["src_col"]), slots("dest", rows * across, write=True)]
    if name == "QMOVE":
        return [nbout("src"), slots("dest", rows * across, write=True)]
    if name == "QSTORE":
        return [nbout("src"), *packed("dest", rows * across, write=True)]
    if name == "VTURN":
        down = -(-rows // config.cols)
        return [
            Range(side("src_side"), f["src"], f["src"] + (rows - 1) * f["src_row"] + across * slot, place="src"),
            Range(side(), f["dest"], f["dest"] + (cols - 1) * f["dest_row"] + down * slot, True, "dest"),
        ]
    if name == "WGSTORE":
        return [nbout("src"), *(words(place, f["mem_row"], write=True) for place in ("w", "m", "v"))]
    if name in ("MM", "CONV"):
        kernel = f.get("kernel_rows", 1) * f.get("kernel_cols", 1)
        weights = f["w"] + (cols - 1) * f["w_row"] + kernel * f["vectors"] * f["w_slot"]
        image = (0, config.nbin_lines)
        if name == "MM":
            image = f["a"], f["a"] + (rows - 1) * f["a_row"] + f["vectors"] * f["a_slot"]
        return [nbout("dest", write=True), Range(Space.NBIN, *image, place="a"), Range(Space.SB, f["w"], weights, place="w")]
    horizontal = name in ("HADD", "HMUL", "HMAX")
    found = [nbout("dest", write=True, wide=1 if horizontal else cols)]
    return found + [nbout(place) for place in ("a", "b", "src") if place in f]
