"""Golden twin of the fused array: one pass of all its clusters."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cluster import Operand, dot_product

__all__ = ["beats", "fused_array"]


def beats(codes: ArrayLike, outlier: ArrayLike, bits: int) -> list[int]:
    """The beats of one row for one pass; codes of shape (words, lanes), `lanes` 4 for 4-bit and 1 for 8-bit codes.

    A zero word makes an odd number of words even.
    """
    code_rows, flag_rows = np.asarray(codes, np.int64).tolist(), np.asarray(outlier).astype(int).tolist()
    words = []
    for code_row, flag_row in zip(code_rows, flag_rows, strict=True):
        words.append(
            sum(code << bits * lane for lane, code in enumerate(code_row))
            | sum(flag << 16 + lane for lane, flag in enumerate(flag_row))
        )
    if len(words) % 2:
        words.append(0)
    pairs = [low | high << 20 for low, high in zip(words[::2], words[1::2], strict=True)]
    return [*pairs[:-1], pairs[-1] | 1 << 40]


def fused_array(a: Operand, w: Operand) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Results and overflow flags of one pass, shape (rows, clusters).

    Values of the operands have shape (rows, words, lanes) and (clusters, words, lanes), with an even number of words.
    """
    rows, columns = a.values.shape[0], w.values.shape[0]
    a_flat, w_flat = a.values.reshape(rows, -1), w.values.reshape(columns, -1)
    values = (a_flat @ w_flat.T + 2**31) % 2**32 - 2**31
    overflow = np.zeros((rows, columns), bool)
    # Only where magnitudes could add up to 2^31 does the order of the sums matter.
    largest = np.abs(a_flat).max(axis=1)[:, None] * np.abs(w_flat).max(axis=1)[None]
    large = largest * a_flat.shape[1] >= 2**31
    for row, column in np.argwhere(large):
        values[row, column], overflow[row, column] = dot_product(Operand(*(x[row] for x in a)), Operand(*(x[column] for x in w)))
    return values, overflow
