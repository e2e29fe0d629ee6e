"""The number of zeros above the leading one."""

from amaranth import Cat, Const, Mux, Value

__all__ = ["leading_zeros"]


def leading_zeros(value: Value) -> Value:
    """Zeros above the leading one of `value`; its length if it is 0.

    A tree: the count of a word is that of its upper half, or half the length more than that of its lower half if the upper half
    holds no one.
    """
    # A one below the last place ends every count, so the zero word is no special case.
    padding = 2 ** len(value).bit_length() - len(value)
    return _count(Cat(Const(2**padding - 1, padding), value))[0]


def _count(value: Value) -> tuple[Value, Value]:
    """Zeros above the leading one of 2^n bits, meaningless if there is none; and whether there is one."""
    if len(value) == 1:
        return Const(0, 0), value
    half = len(value) // 2
    (low, low_any), (high, high_any) = _count(value[:half]), _count(value[half:])
    return Cat(Mux(high_any, high, low), ~high_any), low_any | high_any
