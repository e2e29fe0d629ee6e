"""Twin of hdl.ltoaq.array: matrix products as the wide array computes them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .pe import accumulate, word_sums

__all__ = ["pack_words", "wide_product"]


def pack_words(values: ArrayLike, role: str, *, eight_bit: bool) -> NDArray[np.int64]:
    """Operand rows of shape (rows, K) as words of lanes, shape (rows, words, 4).

    4-bit mode: −32..31, four values a word, K padded with zeros. 8-bit mode: −1024..1023, one value a word, its halves placed
    for operand `role` (``"a"`` or ``"w"``).
    """
    rows = np.asarray(values, np.int64)
    limit = 1024 if eight_bit else 32
    if rows.min(initial=0) < -limit or rows.max(initial=0) >= limit:
        raise ValueError(f"an operand is outside {-limit}..{limit - 1}")
    if not eight_bit:
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
        return rows.reshape(len(rows), -1, 4)
    high = np.floor_divide(rows, 32)
    low = rows - 32 * high
    return np.stack({"a": [low, high, low, high], "w": [low, low, high, high]}[role], axis=-1)


def wide_product(a: ArrayLike, w: ArrayLike, *, eight_bit: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """C = A·Wᵀ of integer matrices (M, K) and (N, K), wrapped to 32 bits, and for each element whether a step overflowed.

    Steps are words in the order of K: four values in 4-bit mode, one in 8-bit mode.
    """
    a_words, w_words = pack_words(a, "a", eight_bit=eight_bit), pack_words(w, "w", eight_bit=eight_bit)
    return accumulate(word_sums(a_words[:, None], w_words[None], eight_bit=eight_bit))
