"""Checks of the numbers that users hand over, where they enter."""

from math import isfinite
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["matrix", "number"]


def number(
    field: str,
    value: object,
    least: float = 0.0,
    below: float = float("inf"),
    *,
    excluded: bool = False,
    error: type[ValueError] = ValueError,
) -> float:
    """`value` as a float that FP32 can hold: `least` ≤ value < `below`, above `least` if that is `excluded`.

    Raises `error`, which names `field` and the range, unless it is one.
    """
    if isinstance(value, Real) and not isinstance(value, bool | np.bool_):
        exact = float(value)
        with np.errstate(over="ignore"):
            rounded = float(np.float32(exact))
        if isfinite(rounded) and (rounded > least if excluded else exact >= least) and exact < below:
            return exact
    most = f" and below {below:g}" if isfinite(below) else ""
    raise error(f"{field} must be a finite number {'above' if excluded else 'of at least'} {least:g}{most}, not {value!r}")


def matrix(what: str, values: ArrayLike, shape: tuple[int, ...], error: type[ValueError] = ValueError) -> NDArray[np.float32]:
    """`values` in FP32. Raises `error`, which names `what`, unless they have that shape and all are finite in FP32."""
    try:
        with np.errstate(over="ignore"):
            found = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise error(f"{what} are no array of {'×'.join(map(str, shape))} numbers") from None
    if found.shape != shape:
        raise error(f"{what} must be {'×'.join(map(str, shape))} numbers, not {'×'.join(map(str, found.shape)) or 'one'}")
    if not (fine := np.isfinite(found)).all():
        first = tuple(int(i) for i in np.argwhere(~fine)[0])
        count = int(np.count_nonzero(~fine))
        value = np.asarray(values)[first]
        raise error(f"{what}: element {list(first)} is {value}, which is no finite FP32 number ({count} of {found.size} are not)")
    return found
