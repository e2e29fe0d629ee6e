"""Golden twin of the threshold's gradient (docs/formats.md; equation 3 of the paper)."""

import numpy as np
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from numpy.typing import ArrayLike, NDArray

from .quantizer import quantize

__all__ = ["threshold_delta", "threshold_gradient"]


def threshold_delta(y: ArrayLike, parameters: QuantizerParameters) -> NDArray[np.int64]:
    """∂x̂/∂α of each element, in 1/(256·Qmax): sign(y')·delta."""
    result = quantize(y, parameters)
    z = result.residual * parameters.multiplier * 256 // 2**result.exponent
    error = np.where(result.saturated, 0, z - 256 * result.q)
    return result.sign * np.where(result.outlier, error, -error)


def threshold_gradient(y: ArrayLike, g: ArrayLike, parameters: QuantizerParameters) -> int:
    """Sum over all elements of the derivative times the incoming 32-bit gradient `g`; 64 bits signed, wrapping."""
    products = threshold_delta(y, parameters) * np.asarray(g, np.int64)
    return int(products.sum(dtype=np.int64))
