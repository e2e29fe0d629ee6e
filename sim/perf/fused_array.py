"""Cycle-stepped model of the fused array: when, not what."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["beat_cycles", "result_times"]


def beat_cycles(a_hot: ArrayLike, w_hot: ArrayLike) -> NDArray[np.int64]:
    """Cycles each beat of one pass keeps each cluster busy, shape (rows, clusters, beats).

    From the words that hold outliers, shapes (rows, beats, 2) and (clusters, beats, 2). A normal pair beside one with outliers
    costs nothing when the hold register is free, one cycle together with the held pair when it is not.
    """
    a, w = np.asarray(a_hot, bool)[:, None], np.asarray(w_hot, bool)[None]
    normal = (~a & ~w).sum(-1)
    cycles = ((a ^ w) + 2 * (a & w)).sum(-1) + (normal == 2)
    held = np.cumsum(normal == 1, axis=-1) % 2 == 1
    cycles += (normal == 1) & ~held
    cycles[..., -1] += held[..., -1]
    return np.asarray(cycles)


def result_times(cycles: NDArray[np.int64], beats: int, depth: int) -> NDArray[np.int64]:
    """Cycle in which each result leaves the array, shape (clusters, results).

    All inputs are offered from cycle 0 on and outputs are always ready.

    Parameters
    ----------
    cycles : int array, rows × clusters × all beats
        Of passes of `beats` beats one after the other, see `beat_cycles`.
    beats : int
    depth : int
        Beats in each operand FIFO.
    """
    rows, clusters, total = cycles.shape
    passes = total // beats
    shape = (rows, clusters)
    # Beats that entered each FIFO and that it handed on; `used` is common to both.
    entered = {side: np.zeros(shape, np.int64) for side in "aw"}
    handed = {side: np.zeros(shape, np.int64) for side in "aw"}
    used = np.zeros(shape, np.int64)
    left = cycles[..., 0].copy()
    row_index, column_index = np.indices(shape)
    complete, full, passing, valid, last = (np.zeros(shape, bool) for _ in range(5))
    bottom = np.zeros(shape, bool)
    bottom[-1] = True
    times: list[list[int]] = [[] for _ in range(clusters)]
    now = 0
    while any(len(column) < rows * passes for column in times):
        # Everything below reads the state at the start of the cycle.
        room = {side: entered[side] - np.minimum(handed[side], used) < depth for side in "aw"}
        waiting = {side: entered[side] > handed[side] for side in "aw"}
        arrive = {side: np.zeros(shape, bool) for side in "aw"}
        leave = {side: waiting[side].copy() for side in "aw"}
        arrive["a"][:, 0] = room["a"][:, 0] & (entered["a"][:, 0] < total)
        arrive["a"][:, 1:] = leave["a"][:, :-1] = waiting["a"][:, :-1] & room["a"][:, 1:]
        arrive["w"][0] = room["w"][0] & (entered["w"][0] < total)
        arrive["w"][1:] = leave["w"][:-1] = waiting["w"][:-1] & room["w"][1:]

        ready = np.minimum(entered["a"], entered["w"]) > used
        final = (left == 1) & (used % beats == beats - 1)
        issue = ready & ~(final & (full | complete))

        for column in np.flatnonzero(valid[0]):
            times[column].append(now)
        free = np.ones(shape, bool)
        for row in range(1, rows):
            free[row] = ~valid[row] | (passing[row - 1] & free[row - 1])
        free[0] = True
        below_valid, below_last = np.zeros(shape, bool), np.zeros(shape, bool)
        below_valid[:-1], below_last[:-1] = valid[1:], last[1:]
        take_own, take_below = free & ~passing & full, free & passing & below_valid
        valid = np.where(free, take_own | take_below, valid)
        last = np.where(take_own, bottom, np.where(take_below, below_last, last))
        passing = np.where(take_own, ~bottom, passing & ~(take_below & below_last))
        full = (full & ~take_own) | complete
        complete = issue & final

        for side in "aw":
            entered[side] += arrive[side]
            handed[side] += leave[side]
        left -= issue
        done = issue & (left == 0)
        used += done
        left = np.where(done, cycles[row_index, column_index, np.minimum(used, total - 1)], left)
        now += 1
    return np.array(times)
