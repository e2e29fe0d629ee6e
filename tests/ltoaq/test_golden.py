"""The golden model's commands against plain arithmetic on real numbers and Python integers."""

import numpy as np
import pytest
from nibblecore.hdl.config import TINY
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq import top


def tensor(rng, shape, bits, signed=True, ratio=0.1):
    threshold = int(rng.integers(1, 2 ** (bits - signed)))
    codes = rng.integers(0, 1 << bits, shape, dtype=np.uint8)
    return OaqTensor(codes, rng.random(shape) < ratio, bits, signed, threshold, int(rng.integers(0, 4)))


def value(t, row, col, limit):
    code, top_bit = int(t.codes[row, col]), 1 << (t.bits - 1)
    negative = t.signed and code >= top_bit
    if not t.outlier[row, col]:
        return code - 2 * top_bit if negative else code
    residual = code - top_bit if negative else code
    magnitude = max(t.threshold + (r << t.k) for r in range(residual + 1) if t.threshold + (r << t.k) <= limit)
    return -magnitude if negative else magnitude


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("a_transposed", [False, True])
@pytest.mark.parametrize("w_transposed", [False, True])
def test_gemm(bits, a_transposed, w_transposed):
    rng = np.random.default_rng(bits)
    m, n, k = 5, 3, 14
    a = tensor(rng, (k, m) if a_transposed else (m, k), bits, signed=True)
    w = tensor(rng, (k, n) if w_transposed else (n, k), bits, signed=False)
    result, overflow = top.gemm(a, w, TINY, a_transposed, w_transposed)
    limit = {4: 31, 8: 1023}[bits]
    for i in range(m):
        for j in range(n):
            expected = sum(
                value(a, *((x, i) if a_transposed else (i, x)), limit) * value(w, *((x, j) if w_transposed else (j, x)), limit)
                for x in range(k)
            )
            assert result[i, j] == expected
    assert not overflow and result.dtype == np.int32


def constant(value, shape):
    return OaqTensor(np.full(shape, value % 256, np.uint8), np.zeros(shape, bool), 8, True, 127, 0)


def test_overflow_is_of_the_running_sum():
    """±1023² k times: flagged if the sum leaves 32 bits on the way, even if it comes back."""
    k = 2**31 // 1023**2 + 1
    big = OaqTensor(np.full((1, k), 127, np.uint8), np.ones((1, k), bool), 8, True, 127, 3)
    assert set(big.values(1023).ravel()) == {1023}
    minus = big.replace(codes=np.full((1, k), 255, np.uint8))
    total, overflow = top.gemm(big, big, TINY)
    assert overflow and total[0, 0] == k * 1023**2 - 2**32
    assert not top.gemm(big.replace(codes=big.codes[:, 1:], outlier=big.outlier[:, 1:]), constant(1, (1, k - 1)), TINY)[1]

    def join(*parts):
        return big.replace(codes=np.hstack([p.codes for p in parts]), outlier=np.hstack([p.outlier for p in parts]))

    total, overflow = top.gemm(join(big, minus), join(big, big), TINY)
    assert overflow and total[0, 0] == 0
    half = big.replace(codes=big.codes[:, : k // 2], outlier=big.outlier[:, : k // 2])
    minus_half = minus.replace(codes=minus.codes[:, : k // 2], outlier=minus.outlier[:, : k // 2])
    total, overflow = top.gemm(join(half, minus_half, half), join(half, half, half), TINY)
    assert not overflow and total[0, 0] == k // 2 * 1023**2


def test_gemm_refuses_what_does_not_fit():
    rng = np.random.default_rng(0)
    a, b, c = (tensor(rng, shape, bits) for shape, bits in (((2, 3), 4), ((2, 3), 8), ((3, 2), 4)))
    with pytest.raises(ValueError, match="4 and 8 bits"):
        top.gemm(a, b, TINY)
    with pytest.raises(ValueError, match="2×3 matrix cannot be multiplied with a 2×3"):
        top.gemm(a, c, TINY)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_quantize_rounds_to_the_nearest(bits, signed):
    rng = np.random.default_rng(1)
    y = np.rint(rng.laplace(0, 3000, (40, 50))).astype(np.int32)
    unit = 0.25
    alpha = float(np.percentile(np.abs(y), 95)) * unit
    q = QuantizerParameters.for_range(alpha, np.abs(y).max() * unit, unit, bits, signed, relu=not signed)
    t, statistics = top.quantize(y, q)
    x = np.maximum(y, 0) * unit if not signed else y * unit
    back = t.values(TINY.value_max(bits)) * q.scale
    step = np.where(t.outlier, q.scale * 2**q.k, q.scale)
    # α lies on the grid only to the nearest unit of the input.
    assert (np.abs(back - x)[t.outlier] <= step[t.outlier] / 2 + unit).sum() >= t.outlier.sum() - statistics.saturations
    assert (np.abs(back - x)[~t.outlier] <= q.scale / 2 + unit).all()
    assert np.array_equal(t.outlier, np.abs(np.rint(x / unit)) >= q.alpha)
    assert statistics.x_max == np.abs(x / unit).max() and statistics.outliers == t.outlier.sum()


def test_threshold_gradient_is_equation_3():
    rng = np.random.default_rng(2)
    y = np.rint(rng.laplace(0, 3000, (30, 30))).astype(np.int32)
    g = rng.integers(-1000, 1000, y.shape, dtype=np.int32)
    q = QuantizerParameters.for_range(7000.0, 22000.0, 1.0, 4, True)
    x, alpha = np.abs(y), q.alpha
    outlier = x >= alpha
    position = np.where(outlier, (x - alpha) / (2.0**q.k * q.scale), x / q.scale)
    rounded = np.floor(position + 0.5)
    derivative = np.where(outlier, position - rounded, rounded - position) / q.code_max
    derivative[np.where(outlier, rounded > q.q_max, rounded > q.code_max)] = 0
    expected = (np.sign(y) * derivative * g).sum()
    got = top.threshold_gradient(y, g, q) / (256 * q.code_max)
    assert abs(got - expected) <= np.abs(g).sum() / (256 * q.code_max), "each element is cut to 1/256 of a step"
    assert abs(expected) > 10 * np.sqrt((g.astype(float) ** 2).sum()) / (256 * q.code_max)
