"""Golden twin of the unary functions: the same integers as hdl.cambriconq.vector.sfu_function, on whole arrays.

Written function by function from docs/blocks/cambriconq/vector/sfu_function.md, not stage by stage; the tables come from binary64, where the
hardware's come from decimal arithmetic.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from nibblecore.sim.golden.arith.fp32_rsqrt import fp32_rsqrt
from nibblecore.sim.golden.arith.int_to_fp32 import int_to_fp32
from numpy.typing import NDArray

__all__ = ["FUNCTIONS", "GROUPS", "coefficients", "function"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]

FUNCTIONS = ("copy", "relu", "exp", "log", "reciprocal", "rsqrt", "sigmoid", "tanh")
"""In the order of their numbers."""

_NAN, _INFINITY = np.float32(np.nan), np.float32(np.inf)
_LN2 = round(float(np.log(2.0)) * 2**36)
_CHUNK = 1 << 16

_Real = Callable[[NDArray[np.float64]], NDArray[np.float64]]
GROUPS: dict[str, tuple[_Real, range]] = {
    "exp": (lambda x: np.exp(x / 32), range(-12, 13)),
    "log": (lambda x: np.log1p(x / 32) / (x / 32), range(-8, 16)),
    "reciprocal": (lambda x: 1 / (1 + x / 32), range(32)),
    "tanh_below_1": (lambda x: np.tanh(x / 32) / (x / 32), range(32)),
    "tanh_from_1": (lambda x: np.tanh(1 + x / 32) / (1 + x / 32), range(32)),
    "tanh_from_2": (lambda x: np.tanh(2 * (1 + x / 32)) / (1 + x / 32), range(32)),
    "tanh_from_4": (lambda x: np.tanh(4 * (1 + x / 32)) / (1 + x / 32), range(32)),
    "tanh_from_8": (lambda x: np.tanh(8 * (1 + x / 32)) / (1 + x / 32), range(5)),
}


@cache
def coefficients(group: str) -> Integers:
    """c0..c3 of each of 32 segments, shape (32, 4), a segment's index modulo 32; those of no use are 0.

    The cubic through the function at the four Chebyshev nodes of a segment, over −½..½, in units of 2^−27, 2^−28, 2^−27 and 2^−27; all but
    the last are rounded up, since the products added to them are cut.
    """
    real, used = GROUPS[group]
    nodes = np.cos((2 * np.arange(4) + 1) * np.pi / 8) / 2
    table = np.zeros((32, 4), np.int64)
    for index in used:
        exact = np.linalg.solve(np.vander(nodes, increasing=True), real(index + 0.5 + nodes)) * [2.0**27, 2.0**28, 2.0**27, 2.0**27]
        table[index % 32] = [*(np.floor(exact[:3]) + 1), np.rint(exact[3])]
    return table


def _cubic(group: str, argument: Integers) -> Integers:
    """The function of `group`, in units of 2^−27, of an argument in units of 2^−22 segments."""
    return _evaluate(coefficients(group)[argument >> 22 & 31], argument)


def _evaluate(c: Integers, argument: Integers) -> Integers:
    u = (argument & (2**22 - 1)) - 2**21
    inner = c[..., 2] + (c[..., 3] * (u >> 10) >> 12)
    middle = c[..., 1] + (inner * (u >> 4) >> 17)
    return c[..., 0] + (middle * u >> 23)


def _split(x: Floats) -> tuple[Integers, Integers]:
    """|x| = significand · 2^(exponent − 23), the significand 2^23..2^24 − 1 also for subnormal numbers; x finite and not 0."""
    mantissa, exponent = np.frexp(np.abs(x).astype(np.float64))
    return np.ldexp(mantissa, 24).astype(np.int64), exponent.astype(np.int64) - 1


def _fixed(x: Floats) -> Integers:
    """|x| in units of 2^−27, cut."""
    return np.floor(np.ldexp(np.abs(x).astype(np.float64), 27)).astype(np.int64)


def _number(integer: Integers, exponent: Integers | int) -> Floats:
    """integer · 2^exponent, rounded to nearest even."""
    return int_to_fp32(integer, exponent).view(np.float32)


def _copy(x: Floats) -> Floats:
    return x.copy()


def _relu(x: Floats) -> Floats:
    return np.where(x > 0, x, np.where(np.isnan(x), _NAN, np.float32(0)))


def _exp(x: Floats) -> Floats:
    inside = np.abs(x) < 128
    magnitude = _fixed(np.where(inside, x, np.float32(0)))
    count = ((magnitude >> 19) * 1477 + 2**17) >> 18
    multiple = ((count * _LN2 + 2**7) >> 8) >> 1
    negative = x < 0
    p = _cubic("exp", np.where(negative, multiple - magnitude, magnitude - multiple))
    # 2^23 · p, cut to units of 2^−28, as every product is.
    result = _number(p << 1, np.where(negative, -count, count) - 28)
    return np.where(inside, result, np.where(np.isnan(x), _NAN, np.where(negative, np.float32(0), _INFINITY)))


def _log(x: Floats) -> Floats:
    usable = (x > 0) & (x < _INFINITY)
    significand, exponent = _split(np.where(usable, x, np.float32(1)))
    upper = significand >= 3 << 22
    # x = 2^exponent · (1 + z), z in units of 2^−24, −¼..½.
    z = np.where(upper, significand - 2**24, 2 * significand - 2**24)
    exponent += upper
    p = _cubic("log", z << 3)
    near_one = exponent == 0
    # Next to 1 the product has all its bits; elsewhere it is added to a multiple of ln 2.
    magnitude = np.abs(z)
    length = np.frexp(magnitude.astype(np.float64))[1]
    normalized = magnitude << (24 - length)
    small = _number(((normalized * p) >> 22) * np.sign(z), length - 24 - 1 - 28)
    product = ((magnitude * p) >> 22) >> 1
    multiple = (np.abs(exponent) * _LN2 + 2**7) >> 8
    large = _number(np.sign(exponent) * multiple + np.sign(z) * product, -28)
    result = np.where(near_one, small, large)
    return np.where(usable, result, np.where(x == 0, -_INFINITY, np.where(x == _INFINITY, x, _NAN)))


def _reciprocal(x: Floats) -> Floats:
    usable = np.isfinite(x) & (x != 0)
    significand, exponent = _split(np.where(usable, x, np.float32(1)))
    p = _cubic("reciprocal", (significand - 2**23) << 4)
    magnitude = np.where(usable, _number(p << 1, -exponent - 28), np.where(x == 0, _INFINITY, np.float32(0)))
    return np.where(np.isnan(x), _NAN, np.copysign(magnitude, x))


def _hyperbolic(significand: Integers, exponent: Integers, fixed: Integers) -> tuple[Integers, Integers]:
    """tanh of significand · 2^(exponent − 23), which is 0 <= `fixed` · 2^−27 if below 1, as a product in units of 2^−28 and an exponent."""
    fraction = significand - 2**23
    groups = ("tanh_below_1", "tanh_from_1", "tanh_from_2", "tanh_from_4", "tanh_from_8")
    tables = np.stack([coefficients(group) for group in groups])
    group = np.clip(exponent + 1, 0, 4)
    argument = np.where(exponent < 0, fixed & (2**27 - 1), fraction << 4)
    p = _evaluate(tables[group, argument >> 22], argument)
    # One from 9.25 on, and for the smallest numbers tanh(x) = x.
    one = (exponent > 3) | ((exponent == 3) & (fraction >= 5 << 18))
    product = np.where(exponent < -12, significand << 5, (significand * p) >> 22)
    return np.where(one, 2**28, product), np.minimum(exponent, 0)


def _tanh(x: Floats) -> Floats:
    usable = np.isfinite(x) & (x != 0)
    product, exponent = _hyperbolic(*_split(np.where(usable, x, np.float32(1))), _fixed(np.where(np.abs(x) < 1, x, np.float32(0))))
    magnitude = np.where(usable, _number(product, exponent - 28), np.where(x == 0, np.float32(0), np.float32(1)))
    return np.where(np.isnan(x), _NAN, np.copysign(magnitude, x))


def _sigmoid(x: Floats) -> Floats:
    usable = np.isfinite(x) & (x != 0)
    significand, exponent = _split(np.where(usable, x, np.float32(1)))
    product, exponent = _hyperbolic(significand, exponent - 1, _fixed(np.where(np.abs(x) < 2, x, np.float32(0))) >> 1)
    half = product >> np.minimum(1 - exponent, 31)
    result = np.where(usable, _number(2**27 + np.where(x < 0, -half, half), -28), np.float32(0.5))
    # Below −16, e^x is as good and keeps its digits; infinities and NaN need nothing else.
    return np.where(x <= -16, _exp(x), np.where(x == _INFINITY, np.float32(1), np.where(np.isnan(x), _NAN, result)))


def _rsqrt(x: Floats) -> Floats:
    return fp32_rsqrt(x.view(np.uint32)).view(np.float32)


_IMPLEMENTATIONS = (_copy, _relu, _exp, _log, _reciprocal, _rsqrt, _sigmoid, _tanh)


def function(number: int, values: Floats) -> Floats:
    """Function `number` of VFUN on float32 values of any shape; every NaN is the quiet one. Raises ValueError for one that does not exist."""
    if not 0 <= number < len(FUNCTIONS):
        raise ValueError(f"there is no function {number}, only 0..{len(FUNCTIONS) - 1}")
    x = np.asarray(values, np.float32)
    flat, result = np.ascontiguousarray(x).ravel(), np.empty(x.size, np.float32)
    with np.errstate(all="ignore"):
        # What fits the cache is several times faster.
        for start in range(0, x.size, _CHUNK):
            part = _IMPLEMENTATIONS[number](flat[start : start + _CHUNK])
            result[start : start + _CHUNK] = np.where(np.isnan(part), _NAN, part)
    return result.reshape(x.shape)
