"""Golden twin of the run-length encoder (docs/formats.md)."""

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["encode", "run_codes"]


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
