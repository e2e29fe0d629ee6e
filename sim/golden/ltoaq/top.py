"""The whole accelerator as functions of tensors: what each command computes, without memory and time."""

from typing import NamedTuple

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq.output import quantizer as quantizer_twin
from nibblecore.sim.golden.ltoaq.output import threshold_gradient as gradient_twin
from numpy.typing import NDArray

__all__ = ["Statistics", "gemm", "quantize", "threshold_gradient"]

_EXACT = 2.0**53


class Statistics(NamedTuple):
    """What a quantizer pass counts."""

    x_max: int
    outliers: int
    saturations: int


def gemm(
    a: OaqTensor, w: OaqTensor, config: LtoaqConfig, a_transposed: bool = False, w_transposed: bool = False
) -> tuple[NDArray[np.int32], bool]:
    """C[M, N] = A·Wᵀ in 32-bit wrapping accumulators, and whether any of them overflowed on the way.

    A is stored M×K, or K×M when `a_transposed`; W is stored N×K, or K×N when `w_transposed`. Words of `config.word_elements`
    codes are added in the order of K.
    """
    if a.bits != w.bits:
        raise ValueError(f"operands of {a.bits} and {w.bits} bits cannot be multiplied")
    left, right = a.values(config.value_max(a.bits)), w.values(config.value_max(w.bits))
    left, right = left.T if a_transposed else left, right if w_transposed else right.T
    if left.shape[1] != right.shape[0]:
        raise ValueError(
            f"a {left.shape[0]}×{left.shape[1]} matrix cannot be multiplied with a {right.shape[0]}×{right.shape[1]} one"
        )
    # BLAS is exact below 2^53, and nothing can overflow if the sum of all magnitudes fits.
    bound = float((np.abs(left).astype(np.float64) @ np.abs(right).astype(np.float64)).max(initial=0))
    exact = bound < _EXACT
    total = (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64) if exact else left @ right
    overflow = bound >= 2**31 and _overflows(left, right, config.word_elements(a.bits))
    return _wrap(total), overflow


def _wrap(total: NDArray[np.int64]) -> NDArray[np.int32]:
    return total.astype(np.uint64).astype(np.uint32).view(np.int32)


def _overflows(left: NDArray[np.int64], right: NDArray[np.int64], lanes: int) -> bool:
    """Whether an accumulator leaves 32 bits when words of `lanes` products are added one after the other."""
    total = np.zeros((left.shape[0], right.shape[1]), np.int64)
    for k in range(0, left.shape[1], lanes):
        total += left[:, k : k + lanes] @ right[k : k + lanes]
        wrapped = _wrap(total).astype(np.int64)
        if not np.array_equal(wrapped, total):
            return True
    return False


def quantize(y: NDArray[np.int32], parameters: QuantizerParameters) -> tuple[OaqTensor, Statistics]:
    """QUANTIZE: the tensor of 32-bit words `y`, and what the pass counted."""
    result = quantizer_twin.quantize(y, parameters)
    p = parameters
    tensor = OaqTensor(result.codes.astype(np.uint8), result.outlier, p.bits, p.signed, p.threshold, p.k)
    return tensor, Statistics(result.x_max, result.outliers, result.saturations)


def threshold_gradient(y: NDArray[np.int32], g: NDArray[np.int32], parameters: QuantizerParameters) -> int:
    """THRESHOLD_GRAD: the sum of equation (3) over the tensor `y` with incoming gradients `g`, signed, wrapping at 64 bits."""
    return gradient_twin.threshold_gradient(y, g, parameters)
