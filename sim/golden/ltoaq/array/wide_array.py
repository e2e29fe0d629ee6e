"""Twin of hdl.ltoaq.array.wide_array: matrix products as the wide array computes them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .wide_pe import accumulate, word_sums

__all__ = ["pack_words", "wide_product"]


def pack_words(values: ArrayLike, role: str, *, eight_bit: bool, lanes: int = 4) -> NDArray[np.int64]:
    """Operand rows of shape (rows, K) as words of lanes, shape (rows, words, lanes).

    4-bit mode: −32..31, as many values a word as lanes. 8-bit mode: −1024..1023, a value for every four lanes, its halves placed
    for operand `role` (``"a"`` or ``"w"``). K is padded with zeros.
    """
    rows = np.asarray(values, np.int64)
    limit = 1024 if eight_bit else 32
    if rows.min(initial=0) < -limit or rows.max(initial=0) >= limit:
        raise ValueError(f"an operand is outside {-limit}..{limit - 1}")
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % (lanes // 4 if eight_bit else lanes))))
    if eight_bit:
        high = np.floor_divide(rows, 32)
        low = rows - 32 * high
        rows = np.stack({"a": [low, high, low, high], "w": [low, low, high, high]}[role], axis=-1)
    return rows.reshape(len(rows), -1, lanes)


def wide_product(a: ArrayLike, w: ArrayLike, *, eight_bit: bool, lanes: int = 4) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """C = A·Wᵀ of integer matrices (M, K) and (N, K), wrapped to 32 bits, and for each element whether a step overflowed.

    Steps are words of `lanes` lanes in the order of K: see `pack_words`.
    """
    a_words, w_words = (pack_words(x, role, eight_bit=eight_bit, lanes=lanes) for x, role in ((a, "a"), (w, "w")))
    return accumulate(word_sums(a_words[:, None], w_words[None], eight_bit=eight_bit))
