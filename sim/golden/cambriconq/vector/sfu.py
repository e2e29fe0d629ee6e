"""Golden twin of the scalar function unit: what the vector instructions compute, on arrays."""

import numpy as np
from numpy.typing import NDArray

from .sfu_function import function

__all__ = ["OPERATIONS", "elementwise", "function", "horizontal"]

Floats = NDArray[np.float32]

OPERATIONS = ("add", "sub", "mul", "max", "step")
"""In the order of their numbers."""


def _larger(a: Floats, b: Floats) -> Floats:
    """The larger; +0 of both zeros, whatever their order (numpy leaves that to the processor); NaN if either is."""
    nan = np.isnan(a) | np.isnan(b)
    return np.where(nan, np.float32(np.nan), np.where((a > b) | ((a == b) & ~np.signbit(a)), a, b))


def _quiet(values: Floats) -> Floats:
    return np.where(np.isnan(values), np.float32(np.nan), values).astype(np.float32)


def elementwise(operation: str, a: Floats, b: Floats) -> Floats:
    """`operation` of each pair, rounded once; every NaN is the quiet one."""
    with np.errstate(all="ignore"):
        if operation == "add":
            return _quiet(a + b)
        if operation == "sub":
            return _quiet(a - b)
        if operation == "mul":
            return _quiet(a * b)
        if operation == "max":
            return _quiet(_larger(a, b))
        if operation == "step":
            return (a >= b).astype(np.float32)
    raise ValueError(f"there is no operation {operation!r}, only {', '.join(OPERATIONS)}")


def horizontal(operation: str, rows: Floats) -> Floats:
    """`operation` over the last axis, from the first element on, each step rounded."""
    if operation not in ("add", "mul", "max"):
        raise ValueError(f"rows are added, multiplied or searched for their largest element, not {operation!r}")
    result = _quiet(rows[..., 0])
    for column in range(1, rows.shape[-1]):
        result = elementwise(operation, result, rows[..., column])
    return result
