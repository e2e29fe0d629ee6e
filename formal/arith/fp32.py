"""What the proofs of the floating-point blocks share: the value of a number as an integer, and what it means to be nearest.

Nothing here counts zeros, shifts to normalize or adds a rounding bit.
"""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import Assert
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.fp32 import Format

__all__ = ["PROOFS", "assert_nearest", "delayed", "infinity", "is_infinity", "is_nan", "magnitude", "quiet_nan"]

PROOFS: list[Proof] = []
"""None of its own: every proof of a floating-point block rests on these."""


def magnitude(m: Module, pattern: Value, format: Format, name: str) -> Signal:
    """|value| of a pattern without its sign, in units of the smallest subnormal number; infinity is the number after the largest."""
    fraction, exponent = pattern[: format.fraction_bits], pattern[format.fraction_bits :]
    value = Signal(format.significand_bits + 2**format.exponent_bits - 2, name=name)
    m.d.comb += value.eq(Mux(exponent == 0, fraction, Cat(fraction, 1) << (exponent - 1)[: format.exponent_bits]))
    return value


def is_nan(pattern: Value, format: Format) -> Value:
    return (pattern[format.fraction_bits : -1] == 2**format.exponent_bits - 1) & (pattern[: format.fraction_bits] != 0)


def is_infinity(pattern: Value, format: Format) -> Value:
    return pattern[:-1] == infinity(format)


def infinity(format: Format) -> int:
    """The pattern of +infinity."""
    return (2**format.exponent_bits - 1) << format.fraction_bits


def quiet_nan(format: Format) -> int:
    return infinity(format) | 1 << (format.fraction_bits - 1)


def assert_nearest(m: Module, result: Value, exact: Value, format: Format, scale: int = 0) -> None:
    """`result`, a pattern without its sign, is the one nearest to `exact` · 2^−scale, in units of the smallest subnormal number.

    Twice the exact value lies between the sums of the result with either neighbour, and on them only if the result is even. Nothing
    is below 0 or above infinity.
    """
    before, after = Signal(len(result)), Signal(len(result) + 1)
    m.d.comb += [before.eq(result - 1), after.eq(result + 1)]
    here, low, high = (
        magnitude(m, pattern, format, name)
        for pattern, name in ((result, "value"), (before, "value_before"), (after[: len(result)], "value_after"))
    )
    even = ~result[0]
    below, above, twice = (
        Signal(len(here) + scale + 1),
        Signal(len(here) + scale + 1),
        Signal(max(len(exact), len(here) + scale) + 1),
    )
    m.d.comb += [below.eq((low + here) << scale), above.eq((here + high) << scale), twice.eq(exact << 1)]
    m.d.comb += [
        Assert(result <= infinity(format)),
        Assert((result == 0) | (below < twice) | ((below == twice) & even)),
        Assert((result == infinity(format)) | (twice < above) | ((twice == above) & even)),
    ]


def delayed(m: Module, value: Value, cycles: int, name: str, *, reset_less: bool = True) -> Value:
    """`value` of `cycles` cycles ago."""
    for cycle in range(cycles):
        register: Any = Signal.like(value, name=f"{name}_{cycle}", reset_less=reset_less, init=0)
        m.d.sync += register.eq(value)
        value = register
    return value
