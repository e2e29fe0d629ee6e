"""Twin of hdl.ltoaq.array.wide_pe: what a wide PE makes of a sequence of words."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["accumulate", "word_sums"]

_WEIGHT = {False: np.array([1, 1, 1, 1], np.int64), True: np.array([1, 32, 32, 1024], np.int64)}


def word_sums(a: ArrayLike, w: ArrayLike, *, eight_bit: bool) -> NDArray[np.int64]:
    """What each word adds to the accumulator; `a` and `w` are lanes, −32..31, of shape (..., 4) or (..., 8), which broadcast."""
    a_lanes, w_lanes = np.asarray(a, np.int64), np.asarray(w, np.int64)
    place = np.arange(a_lanes.shape[-1]) % 4
    low = np.concatenate([a_lanes[..., place % 2 == 0].ravel(), w_lanes[..., place < 2].ravel()])
    if min(a_lanes.min(initial=0), w_lanes.min(initial=0)) < -32 or max(a_lanes.max(initial=0), w_lanes.max(initial=0)) > 31:
        raise ValueError("a lane is outside -32..31")
    if eight_bit and low.min(initial=0) < 0:
        raise ValueError("in 8-bit mode low halves lie in 0..31")
    return (a_lanes * w_lanes) @ _WEIGHT[eight_bit][place]


def accumulate(sums: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The 32-bit result, wrapped, and the overflow flag of passes whose word sums run along the last axis, in order.

    One word, all its lanes together, is one step; the flag says that some step's sum left the signed 32-bit range.
    """
    steps = np.asarray(sums, np.int64)
    total = np.zeros(steps.shape[:-1], np.int64)
    overflow = np.zeros(steps.shape[:-1], bool)
    for step in np.moveaxis(steps, -1, 0):
        exact = total + step
        total = exact.astype(np.int32).astype(np.int64)
        overflow |= total != exact
    return total, overflow
