"""Run-length segments: where a tile's outliers are (docs/formats.md)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Malformed", "decode", "encode", "run_codes", "unpack_codes"]


class Malformed(ValueError):
    """A run-length segment says something about elements that are not there, or lacks codes that it counts."""


def unpack_codes(beats: Sequence[int], bus_bits: int, run_bits: int) -> NDArray[np.int64]:
    """The codes in every slot of `beats`, count included."""
    bus_bytes, slots = -(-bus_bits // 8), bus_bits // run_bits
    region = np.frombuffer(b"".join(beat.to_bytes(bus_bytes, "little") for beat in beats), dtype=np.uint8)
    bits = np.unpackbits(region.reshape(len(beats), bus_bytes), axis=1, bitorder="little")
    return np.asarray(bits[:, : slots * run_bits].reshape(-1, run_bits) @ (1 << np.arange(run_bits, dtype=np.int64)))


def decode(beats: Sequence[int], words: int, lanes: int, bus_bits: int, run_bits: int) -> NDArray[np.bool_]:
    """Outlier flags of the ``words·lanes`` elements of a tile; `beats` are all that was fetched of its segment.

    `lanes` counts the elements of a beat of codes: half as many for 8-bit codes. Raises `Malformed`.
    """
    codes = unpack_codes(beats, bus_bits, run_bits) if len(beats) else np.zeros(0, dtype=np.int64)
    if len(codes) < 2:
        raise Malformed("a segment without a count")
    count = int(codes[0]) | int(codes[1]) << run_bits
    if count > len(codes) - 2:
        raise Malformed(f"a segment of {count} codes in {len(beats)} beats, which hold {len(codes) - 2}")
    codes = codes[2 : 2 + count]
    escape = codes == 2**run_bits - 1
    behind = np.cumsum(codes + ~escape)  # the element behind those that the code covers
    if count and behind[-1] > words * lanes:
        raise Malformed(f"codes for {behind[-1]} elements in a tile of {words * lanes}")
    flags = np.zeros(words * lanes, dtype=np.bool_)
    flags[behind[~escape] - 1] = True
    return flags


def run_codes(flags: ArrayLike, run_bits: int) -> list[int]:
    """The codes of a tile whose elements have the outlier `flags`, in beat order; normal elements at its end get none."""
    escape = 2**run_bits - 1
    runs = np.diff(np.flatnonzero(np.ravel(flags)), prepend=-1) - 1
    lengths = runs // escape + 1
    codes = np.full(int(lengths.sum()), escape)
    codes[np.cumsum(lengths) - 1] = runs % escape
    return [int(code) for code in codes]


def encode(flags: ArrayLike, bus_bits: int, run_bits: int) -> list[int]:
    """The beats of the segment, as integers; as few as hold its codes, at least one."""
    codes, slots = run_codes(flags, run_bits), bus_bits // run_bits
    if len(codes) >= 2 ** (2 * run_bits):
        raise ValueError(f"{len(codes)} codes cannot be counted in two codes of {run_bits} bits")
    codes = [len(codes) & (2**run_bits - 1), len(codes) >> run_bits, *codes]
    return [
        sum(code << (slot * run_bits) for slot, code in enumerate(codes[first : first + slots]))
        for first in range(0, len(codes), slots)
    ]
