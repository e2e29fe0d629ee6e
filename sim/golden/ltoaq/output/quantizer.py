"""Golden twin of the quantizer (docs/formats.md)."""

from typing import NamedTuple

import numpy as np
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from numpy.typing import ArrayLike, NDArray

__all__ = ["Quantized", "quantize"]


class Quantized(NamedTuple):
    """The quantizer's outputs, arrays of the input's shape, and its statistics.

    `codes` are bit patterns of `bits` bits. `residual` is d, `exponent` e and `q` the clipped magnitude of docs/formats.md; `sign`
    is −1 or 1.
    """

    codes: NDArray[np.int64]
    outlier: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    sign: NDArray[np.int64]
    residual: NDArray[np.int64]
    exponent: NDArray[np.int64]
    q: NDArray[np.int64]
    x_max: int
    outliers: int
    saturations: int


def quantize(y: ArrayLike, parameters: QuantizerParameters) -> Quantized:
    """Codes of the 32-bit signed integers `y`."""
    p = parameters
    values: NDArray[np.int64] = np.asarray(y, np.int64)
    if p.relu or not p.signed:
        values = np.maximum(values, 0)
    negative = values < 0
    a = np.abs(values)
    outlier = a >= p.alpha
    d = np.where(outlier, a - p.alpha, a)
    e = np.where(outlier, p.shift + p.k, p.shift)
    half = np.where(e > 0, 2 ** np.maximum(e - 1, 0), 0)
    r = (d * p.multiplier + half) // 2**e
    limit = np.where(outlier, p.q_max, p.code_max)
    q = np.minimum(r, limit)
    saturated = r > limit
    sign_bit = np.where(negative, 2 ** (p.bits - 1), 0)
    codes = np.where(outlier, sign_bit | q, np.where(negative, -q, q) % 2**p.bits)
    return Quantized(
        codes,
        outlier,
        saturated,
        np.where(negative, -1, 1),
        d,
        e,
        q,
        int(a.max(initial=0)),
        int(outlier.sum()),
        int(saturated.sum()),
    )
