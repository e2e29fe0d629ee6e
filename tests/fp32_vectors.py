"""Operands for the floating-point benches, as bit patterns, weighted to what goes wrong."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint32]
Pair = tuple[Words, Words]

SPECIAL = np.array(
    [
        0x00000000,
        0x00000001,
        0x00000002,
        0x00000003,
        0x00400000,
        0x007FFFFE,
        0x007FFFFF,
        0x00800000,
        0x00800001,
        0x00FFFFFF,
        0x01000000,
        0x33800000,
        0x33800001,
        0x3F000000,
        0x3F7FFFFF,
        0x3F800000,
        0x3F800001,
        0x3FFFFFFF,
        0x40000000,
        0x4B000000,
        0x4B7FFFFF,
        0x4B800000,
        0x7E7FFFFF,
        0x7E800000,
        0x7F000000,
        0x7F7FFFFE,
        0x7F7FFFFF,
        0x7F800000,
        0x7F800001,
        0x7FBFFFFF,
        0x7FC00000,
        0x7FFFFFFF,
    ],
    np.uint32,
)
"""Both ends of subnormal and normal numbers, one and its neighbours, infinity, NaNs. Without signs."""


def every_special_pair() -> Pair:
    both = np.concatenate([SPECIAL, SPECIAL | np.uint32(1 << 31)])
    a, b = np.meshgrid(both, both)
    return a.ravel(), b.ravel()


def patterns(rng: np.random.Generator, count: int) -> Words:
    """Any 32 bits."""
    return rng.integers(0, 2**32, count, np.uint32)


def fractions(rng: np.random.Generator, count: int) -> Words:
    """Any fraction, or one with few bits set or clear at either end, where ties and long carries are."""
    wide, shift = rng.integers(0, 2**23, count, np.uint32), rng.integers(0, 23, count, np.uint32)
    ends = np.stack(
        [wide, (wide >> shift) << shift, wide >> shift, ~((wide >> shift) << shift), ~(wide >> shift), np.uint32(1) << shift]
    )
    return ends[rng.integers(0, len(ends), count), np.arange(count)] & np.uint32(2**23 - 1)


def join(sign: ArrayLike, exponent: ArrayLike, fraction: ArrayLike) -> Words:
    biased = np.clip(exponent, 0, 255).astype(np.uint32)
    return np.asarray(np.asarray(sign, np.uint32) << 31 | biased << 23 | np.asarray(fraction, np.uint32), np.uint32)


def signs(rng: np.random.Generator, count: int) -> Words:
    return rng.integers(0, 2, count, np.uint32)


def numbers(rng: np.random.Generator, count: int, low: int = 0, high: int = 255) -> Words:
    """Biased exponents of `low` to `high`, fractions of every kind."""
    return join(signs(rng, count), rng.integers(low, high + 1, count), fractions(rng, count))


def addends(rng: np.random.Generator, count: int) -> Pair:
    """Pairs whose sums cancel, tie, are subnormal, overflow, or are anything."""
    part = count // 6
    exponent = rng.integers(0, 256, part)
    near = (
        join(signs(rng, part), exponent, fractions(rng, part)),
        join(signs(rng, part), exponent + rng.integers(-2, 3, part), fractions(rng, part)),
    )
    # The smaller one's leading bits fall on and around the bit below the larger one's last.
    tie = (
        join(signs(rng, part), exponent, fractions(rng, part)),
        join(signs(rng, part), exponent - rng.integers(22, 28, part), fractions(rng, part)),
    )
    base = numbers(rng, part)
    cancel = base, (base ^ np.uint32(1 << 31)) + rng.integers(-2, 3, part).astype(np.uint32)
    small = numbers(rng, part, 0, 2), numbers(rng, part, 0, 26)
    sign = signs(rng, part)
    huge = (
        join(sign, rng.integers(252, 255, part), fractions(rng, part)),
        join(sign, rng.integers(228, 256, part), fractions(rng, part)),
    )
    rest = count - 5 * part
    return _shuffled(rng, [near, tie, cancel, small, huge, (patterns(rng, rest), patterns(rng, rest))])


def factors(rng: np.random.Generator, count: int) -> Pair:
    """Pairs whose products tie, are subnormal, overflow, or are anything; with subnormal factors too."""
    part = count // 6
    exponent = rng.integers(0, 256, part)

    def partner(total: NDArray[np.int64]) -> Words:
        return join(signs(rng, part), total - exponent, fractions(rng, part))

    def first() -> Words:
        return join(signs(rng, part), exponent, fractions(rng, part))

    subnormal = first(), partner(127 + rng.integers(-26, 3, part))
    overflow = first(), partner(127 + rng.integers(252, 258, part))
    one_subnormal = join(signs(rng, part), np.zeros(part, int), fractions(rng, part)), numbers(rng, part, 100, 255)
    # Significands of 24 bits together or a little more, so that the product often ends in a tie.
    length = rng.integers(1, 24, part)
    a, b = rng.integers(0, 2**23, part) | 2**23, rng.integers(0, 2**23, part) | 2**23
    a, b = a >> (23 - length), b >> np.minimum(length, 23)
    short = numbers_of(rng, a | 1), numbers_of(rng, b | 1)
    # Results of a subnormal size whose dropped bits are a tie: a power of two on one side.
    power = join(signs(rng, part), exponent, np.zeros(part, int)), partner(127 + rng.integers(-24, 2, part))
    rest = count - 5 * part
    return _shuffled(rng, [subnormal, overflow, one_subnormal, short, power, (patterns(rng, rest), patterns(rng, rest))])


def numbers_of(rng: np.random.Generator, integers: ArrayLike) -> Words:
    """Small integers times a random power of two."""
    value = np.asarray(integers, np.float32).view(np.uint32)
    exponent = (value >> np.uint32(23)).astype(int) + rng.integers(-60, 61, len(value))
    return join(signs(rng, len(value)), exponent, value & np.uint32(2**23 - 1))


def _shuffled(rng: np.random.Generator, pairs: Sequence[Pair]) -> Pair:
    """Joined, in random order, and each pair either way round."""
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    swap, order = rng.integers(0, 2, len(a)).astype(bool), rng.permutation(len(a))
    return np.where(swap, b, a)[order], np.where(swap, a, b)[order]
