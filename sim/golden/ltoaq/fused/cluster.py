"""Golden twin of the fused cluster: its schedule, and the sums it makes cycle by cycle."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from nibblecore.sim.golden.ltoaq.operands.operand_decoder import decode_operand
from numpy.typing import ArrayLike, NDArray

__all__ = ["Operand", "dot_product", "operand", "pass_cycles", "schedule"]


class Operand(NamedTuple):
    """Words of one row of a tensor, as the cluster sees them.

    ``values`` and ``bases``: shape (..., words, lanes), in steps; a base is the code of a normal element and ±T of an outlier.
    ``hot``: shape (..., words), whether the word holds an outlier.
    """

    values: NDArray[np.int64]
    bases: NDArray[np.int64]
    hot: NDArray[np.bool_]


def operand(codes: ArrayLike, outlier: ArrayLike, bits: int, signed: bool, threshold: int, k: int) -> Operand:
    """Codes of shape (..., words, lanes), `lanes` 4 for 4-bit and 1 for 8-bit codes. Nothing saturates."""
    flags = np.asarray(outlier).astype(bool)
    values = decode_operand(codes, flags, bits, signed, threshold, k, value_max=1 << 20)
    top = (np.asarray(codes, np.int64) >= 2 ** (bits - 1)) & bool(signed)
    bases = np.where(flags, np.where(top, -threshold, threshold), values)
    return Operand(values, bases, np.asarray(flags.any(axis=-1)))


def schedule(a_hot: Sequence[bool], w_hot: Sequence[bool]) -> Iterator[list[tuple[int, int | None]]]:
    """What a cluster works on in each cycle of a pass of an even number of pairs.

    Each cycle is a list of one or two entries (pair, step): step None for a normal pair on one PE, 0 or 1 for a pair with
    outliers on both.
    """
    held: int | None = None
    for first in range(0, len(a_hot), 2):
        pairs = (first, first + 1)
        normal = [n for n in pairs if not (a_hot[n] or w_hot[n])]
        if len(normal) == 2:
            yield [(n, None) for n in normal]
            continue
        for n in pairs:
            if n not in normal:
                yield [(n, 0)]
                if a_hot[n] and w_hot[n]:
                    yield [(n, 1)]
        if normal and held is None:
            held = normal[0]
        elif normal and held is not None:
            yield [(held, None), (normal[0], None)]
            held = None
    if held is not None:
        yield [(held, None)]


def pass_cycles(a_hot: ArrayLike, w_hot: ArrayLike) -> NDArray[np.int64]:
    """Cycles of a pass, from flags of shape (..., pairs): half a cycle a normal pair, one with outliers on a side, two on both."""
    a, w = np.asarray(a_hot, bool), np.asarray(w_hot, bool)
    normal, one, both = ((~a & ~w).sum(-1), (a ^ w).sum(-1), (a & w).sum(-1))
    return np.asarray(-(-normal // 2) + one + 2 * both)


def dot_product(a: Operand, w: Operand) -> tuple[int, bool]:
    """Sum over one row of A and of W, shape (words, lanes), as the cluster makes it: modulo 2^32, and whether it overflowed."""
    total, overflow = 0, False
    for cycle in schedule(a.hot.tolist(), w.hot.tolist()):
        for n, step in cycle:
            # A's base goes with all of W first; its residual follows only when W has outliers too.
            in_two = a.hot[n] and w.hot[n]
            lanes = a.values[n] if not in_two else a.bases[n] if step == 0 else a.values[n] - a.bases[n]
            total += int((lanes * w.values[n]).sum())
        wrapped = (total + 2**31) % 2**32 - 2**31
        overflow |= wrapped != total
        total = wrapped
    return total, overflow
