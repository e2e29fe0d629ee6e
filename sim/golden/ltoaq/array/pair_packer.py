"""Twin of hdl.ltoaq.array.pair_packer: the multiplicands of a word as integers, and how they lie in it."""

from collections.abc import Sequence

__all__ = ["multiplicands", "packed"]


def multiplicands(lanes: Sequence[int], role: str, *, eight_bit: bool) -> tuple[int, int]:
    """(inner, outer) of four lanes, which in 8-bit mode are halves of 5 and 6 bits."""
    if eight_bit:
        return 0, 64 * (lanes[0] + 32 * lanes[3])
    low = {"a": (1, 0), "w": (2, 3)}[role]
    inner, outer = (lanes[lane] + 4096 * lanes[3 - lane] for lane in low)
    if not all(-(2**17) <= value < 2**17 for value in (inner, outer)):
        raise ValueError("a multiplicand has more than 18 bits")
    return inner, outer


def packed(lanes: Sequence[int], role: str, *, eight_bit: bool) -> int:
    """The word, of 30 bits."""
    inner, outer = multiplicands(lanes, role, eight_bit=eight_bit)
    return inner % 64 | inner // 4096 % 64 << 6 | outer % 2**18 << 12
