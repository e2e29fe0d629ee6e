"""The binary floating-point format and what every block does with an operand first."""

from dataclasses import dataclass
from typing import NamedTuple

from amaranth import Cat, Module, Signal, Value

__all__ = ["FP32", "Format", "Operand", "unpack"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """An IEEE 754 binary format: sign, biased exponent, fraction, from the top.

    The machines compute in `FP32` only. The blocks take narrower formats so that their contract can be proved for every operand.
    """

    exponent_bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        if self.exponent_bits < 2 or self.fraction_bits < 2:
            raise ValueError(f"a format needs two bits of exponent and of fraction at least, not {self}")

    @property
    def width(self) -> int:
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def significand_bits(self) -> int:
        """The fraction and the one or, of a subnormal number, zero above it."""
        return 1 + self.fraction_bits

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def suffix(self) -> str:
        """For names of modules."""
        return f"{self.exponent_bits}_{self.fraction_bits}"


FP32 = Format(exponent_bits=8, fraction_bits=23)


class Operand(NamedTuple):
    """The parts of a number ± significand · 2^(exponent − bias − fraction_bits), and what else it may be."""

    sign: Value
    exponent: Signal
    """1 for zero and subnormal numbers: their significands have the weight of the smallest normal ones."""
    significand: Signal
    zero: Signal
    infinity: Signal
    nan: Signal


def unpack(m: Module, value: Value, format: Format, name: str) -> Operand:
    """Splits `value`; the signals are called after `name`."""
    fraction, field = value[: format.fraction_bits], value[format.fraction_bits : -1]
    normal, largest, whole = Signal(name=f"{name}_normal"), Signal(name=f"{name}_largest"), Signal(name=f"{name}_whole")
    operand = Operand(
        sign=value[-1],
        exponent=Signal(format.exponent_bits, name=f"{name}_exponent"),
        significand=Signal(format.significand_bits, name=f"{name}_significand"),
        zero=Signal(name=f"{name}_zero"),
        infinity=Signal(name=f"{name}_infinity"),
        nan=Signal(name=f"{name}_nan"),
    )
    m.d.comb += [
        normal.eq(field.any()),
        largest.eq(field.all()),
        whole.eq(~fraction.any()),
        operand.exponent.eq(field | ~normal),
        operand.significand.eq(Cat(fraction, normal)),
        operand.zero.eq(~normal & whole),
        operand.infinity.eq(largest & whole),
        operand.nan.eq(largest & ~whole),
    ]
    return operand
