"""Golden twin of the statistic-quantization unit (docs/cambriconq.md)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Candidate", "Quantized", "SquParameters", "quantize_block", "statistic"]

_WINDOW_BITS = 24


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to quantize a block.

    Parameters
    ----------
    bits : int
        4, 8, 12 or 16.
    offset : int
        Added to the exponent, −8..7.
    clip : int or None
        Largest \\|q\\|, Qmax if None. Above Qmax, which is illegal, it counts as Qmax.
    """

    bits: int
    offset: int = 0
    clip: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in (4, 8, 12, 16):
            raise ValueError(f"bits must be 4, 8, 12 or 16, not {self.bits}")
        if not -8 <= self.offset <= 7:
            raise ValueError(f"offset must be −8..7, not {self.offset}")
        if self.clip is not None and not 0 <= self.clip < 2**15:
            raise ValueError(f"clip must be 0..32767, not {self.clip}")

    @property
    def q_max(self) -> int:
        return 2 ** (self.bits - 1) - 1

    @property
    def limit(self) -> int:
        return self.q_max if self.clip is None else min(self.clip, self.q_max)


@dataclass(frozen=True, kw_only=True)
class SquParameters:
    """How a block is quantized.

    Parameters
    ----------
    candidates : tuple of Candidate
        One to four.
    metric : int
        What makes a candidate worse: 0, Σ\\|x̃ − x′\\|; 1, \\|Σx̃ − Σx′\\|; 2, max\\|x̃ − x′\\|. 3, which is illegal, counts as 0.
    exponent : int or None
        With which every candidate starts, −128..127; None for that of θ.
    """

    candidates: tuple[Candidate, ...]
    metric: int = 0
    exponent: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.candidates) <= 4:
            raise ValueError(f"there must be one to four candidates, not {len(self.candidates)}")
        if not 0 <= self.metric <= 3:
            raise ValueError(f"metric must be 0..2, not {self.metric}")
        if self.exponent is not None and not -128 <= self.exponent <= 127:
            raise ValueError(f"exponent must be −128..127, not {self.exponent}")

    @property
    def illegal(self) -> bool:
        return self.metric == 3 or any(
            candidate.clip is not None and candidate.clip > candidate.q_max for candidate in self.candidates
        )


class Quantized(NamedTuple):
    """A block's integers and tag, and what was found on the way."""

    q: NDArray[np.int64]
    e: int
    bits: int
    winner: int
    errors: tuple[int, ...]
    nan: bool
    infinity: bool
    clamped: bool


def statistic(x: NDArray[np.uint32]) -> int:
    """θ as a multiple of 2^−149."""
    significands, exponents, finite = _parts(x)
    # Without their signs, finite numbers are in the order of their bit patterns.
    largest = np.argmax(np.where(finite, x & 0x7FFFFFFF, 0))
    return int(significands[largest]) << int(exponents[largest]) if finite[largest] else 0


def quantize_block(x: ArrayLike, parameters: SquParameters) -> Quantized:
    """Quantizes the binary32 bit patterns `x` as one block."""
    x = np.asarray(x, np.uint32)
    significands, exponents, finite = _parts(x)
    nan, infinite = ~finite & (x & 0x7FFFFF != 0), ~finite & (x & 0x7FFFFF == 0)
    theta = statistic(x)
    # E, with units of 2^(E−24); a block of zeros needs none.
    top = theta.bit_length() - 149 if parameters.exponent is None else parameters.exponent + 15
    cut = np.where(finite, _cut(significands, exponents - 149 - (top - _WINDOW_BITS)), 0)
    sign = np.where(x >> 31, -1, 1)

    results, errors, tags, clamped = [], [], [], False
    for candidate in parameters.candidates:
        if parameters.exponent is not None:
            e = parameters.exponent + candidate.offset
        elif theta:
            e = _least_exponent(theta, candidate.q_max) + candidate.offset
        else:
            e = -128
        clamped |= not -128 <= e <= 127
        e = min(max(e, -128), 127)
        h = e - (top - _WINDOW_BITS)
        magnitude = np.minimum((cut + (1 << h >> 1)) >> h, candidate.limit)
        magnitude = np.where(infinite, candidate.limit, magnitude)
        off = np.where(finite, sign * (cut - (magnitude << h)), 0)
        errors.append({1: abs(int(off.sum())), 2: int(np.abs(off).max(initial=0))}.get(parameters.metric, int(np.abs(off).sum())))
        results.append(np.where(nan, 0, sign * magnitude))
        tags.append(e)
    winner = errors.index(min(errors))
    return Quantized(
        q=results[winner],
        e=tags[winner],
        bits=parameters.candidates[winner].bits,
        winner=winner,
        errors=tuple(errors),
        nan=bool(nan.any()),
        infinity=bool(infinite.any()),
        clamped=clamped,
    )


def _parts(x: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Integer significands, exponents above −149, and which of the numbers are finite."""
    field, fraction = (x >> 23 & 0xFF).astype(np.int64), (x & 0x7FFFFF).astype(np.int64)
    return np.where(field > 0, fraction + 2**23, fraction), np.maximum(field, 1) - 1, field < 255


def _least_exponent(theta: int, q_max: int) -> int:
    # One less would be too small by the numbers of bits alone.
    e = max(-128, theta.bit_length() - q_max.bit_length() - 149)
    while q_max << (e + 149) < theta:
        e += 1
    return e


def _cut(significands: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """significand · 2^places, cut toward zero to an integer, at most 2^24 − 1."""
    limit = 2**_WINDOW_BITS - 1
    # Further than this all is cut off, or all is above the limit.
    places = np.clip(places, -_WINDOW_BITS, _WINDOW_BITS)
    shifted = np.where(places < 0, significands >> np.maximum(-places, 0), significands << np.maximum(places, 0))
    return np.minimum(shifted, limit)
