"""Reciprocal square root of IEEE 754 binary32 numbers, to one unit in the last place."""

from collections.abc import Sequence
from math import isqrt

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .fp32 import FP32, unpack
from .leading_zeros import leading_zeros

__all__ = ["Fp32Rsqrt"]

_FRACTION = FP32.fraction_bits
# Fraction bits of the three coefficients and of the square; the sum has those of the first.
_C0, _C1, _C2, _SQUARE = 27, 19, 12, 26
# Bits of the distance from the middle of a segment that enter the product, and those of them that enter the square; a half is
# added below either.
_DISTANCE, _SQUARED = 16, 12
_SHORT_SEGMENT, _LONG_SEGMENT = 2**-7, 2**-6
_SHORT_END = 1.25


@emit_once
class Fp32Rsqrt(wiring.Component):
    """``o`` = 1 / √``i``, within one unit in the last place of the exact value.

    Subnormal operands count in full; results are never subnormal. Of ±0 and of +infinity the result is +0, of negative numbers and
    NaN it is 0x7FC00000. That of an even power of two is exact.

    With i = m·2^(2k + parity), m in [1, 2), the result is f(m)·2^−k where f(m) = (m·2^parity)^(−1/2) is a parabola in each of 80
    segments of m, 2^−7 wide below 1.25 and 2^−6 above:

        f ≈ c0 − c1·t + c2·t²,  t = m − middle

    The middle lies half way between two values of m, so that |t| is the lower bits of m or their complement, and a half. The
    coefficients interpolate f at t = 0 and ±√3/4 of the segment, which balances the error.

    Latency: `LATENCY` = 3 cycles: normalize; look up, multiply by c1, square; multiply by c2, add. Throughput: one result a cycle;
    nothing ever waits. Without ``o_valid`` a result means nothing.

    Members
    -------
    i_valid : In(1)
        There is an operand.
    i : In(32)
        In binary32.
    o_valid : Out(1)
        ``i_valid``, `LATENCY` cycles later.
    o : Out(32)
        In binary32; for one cycle.
    """

    LATENCY = 3

    def __init__(self) -> None:
        super().__init__({"i_valid": In(1), "i": In(32), "o_valid": Out(1), "o": Out(32)})

    @property
    def module_name(self) -> str:
        return "fp32_rsqrt"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid = Signal(self.LATENCY)
        m.d.sync += valid.eq(Cat(self.i_valid, valid))
        m.d.comb += self.o_valid.eq(valid[-1])

        # Stage 0: normalize. Of a normal number the count is 0.
        i = unpack(m, self.i, FP32, "i")
        zeros = Signal(range(FP32.significand_bits + 1))
        exponent = Signal(signed(FP32.exponent_bits + 2))
        normalized = Signal(FP32.significand_bits)
        m.d.comb += [
            zeros.eq(leading_zeros(i.significand)),
            normalized.eq(i.significand << zeros),
            exponent.eq(i.exponent - zeros + 1),
        ]
        fraction = Signal(_FRACTION, reset_less=True)
        parity = Signal(reset_less=True)
        stage1_exponent = Signal(FP32.exponent_bits, reset_less=True)
        stage1_zero = Signal(reset_less=True)
        stage1_nan = Signal(reset_less=True)
        m.d.sync += [
            # Here 128 + the true exponent: bit 0 is the parity, and k is the half of it less 64. The result's is 126 − k.
            fraction.eq(normalized),
            parity.eq(exponent[0]),
            stage1_exponent.eq(190 - (exponent >> 1)),
            stage1_zero.eq(i.zero | (i.infinity & ~i.sign)),
            stage1_nan.eq(i.nan | (i.sign & ~i.zero)),
        ]

        # Stage 1: the segment, its coefficients, and |t|.
        short = Signal()
        above = Signal()
        c0, c1, c2 = (
            self._look_up(m, name, column, parity, fraction, short)
            for name, column in zip(("c0", "c1", "c2"), zip(*_coefficients(), strict=True), strict=True)
        )
        distance = Signal(_DISTANCE)
        half_steps = Signal(_SQUARED + 1)
        m.d.comb += [
            short.eq(fraction[-2:] == 0),
            above.eq(Mux(short, fraction[_DISTANCE - 1], fraction[_DISTANCE])),
            distance.eq((fraction ^ (~above).replicate(_DISTANCE)) & ~(short << (_DISTANCE - 1))),
            half_steps.eq(Cat(Const(1, 1), distance[-_SQUARED:])),
        ]
        linear = Signal(len(c1) + _DISTANCE + 1)
        square = Signal(2 * len(half_steps))
        m.d.comb += [linear.eq(c1 * Cat(Const(1, 1), distance)), square.eq(half_steps * half_steps)]
        linear_unit, square_unit = _C1 + _FRACTION + 1, 2 * (_FRACTION + 1 - (_DISTANCE - _SQUARED))
        stage2_c0 = Signal(len(c0), reset_less=True)
        stage2_c2 = Signal(len(c2), reset_less=True)
        stage2_linear = Signal(len(linear) - (linear_unit - _C0), reset_less=True)
        stage2_square = Signal(len(square) - (square_unit - _SQUARE), reset_less=True)
        stage2_above = Signal(reset_less=True)
        stage2_zero = Signal(reset_less=True)
        stage2_nan = Signal(reset_less=True)
        stage2_exponent = Signal(FP32.exponent_bits, reset_less=True)
        m.d.sync += [
            stage2_c0.eq(c0),
            stage2_c2.eq(c2),
            stage2_linear.eq(linear >> (linear_unit - _C0)),
            stage2_square.eq(square >> (square_unit - _SQUARE)),
            stage2_above.eq(above),
            stage2_zero.eq(stage1_zero),
            stage2_nan.eq(stage1_nan),
            stage2_exponent.eq(stage1_exponent),
        ]

        # Stage 2: the parabola; c0 brings the half with which the sum is rounded. It is 1 at most, which is the next exponent's.
        quadratic = Signal(len(stage2_linear))
        total = Signal(_C0 + 1)
        signed_linear = Cat(stage2_linear ^ stage2_above.replicate(len(stage2_linear)), stage2_above).as_signed()
        m.d.comb += [
            quadratic.eq((stage2_c2 * stage2_square) >> (_C2 + _SQUARE - _C0)),
            total.eq(stage2_c0 + quadratic + signed_linear),
        ]
        significand = total[_C0 - FP32.significand_bits :]
        regular = Signal()
        o = Signal(FP32.width, reset_less=True)
        m.d.comb += regular.eq(~stage2_zero & ~stage2_nan)
        m.d.sync += o.eq(
            Cat(
                Mux(regular, significand[:_FRACTION], Cat(Const(0, _FRACTION - 1), stage2_nan)),
                Mux(regular, stage2_exponent + significand[-1], stage2_nan.replicate(FP32.exponent_bits)),
            )
        )
        m.d.comb += self.o.eq(o)
        return m

    def _look_up(self, m: Module, name: str, column: Sequence[int], parity: Value, fraction: Value, short: Value) -> Signal:
        """One coefficient of the segment that `fraction` is in.

        A table of short segments and one of long ones. The latter's entries below the first long segment are never used: those a
        quarter further on stand in, so that they cost nothing.
        """
        o = Signal(max(column).bit_length(), name=name)
        rows = len(column) // 2
        short_rows = round((_SHORT_END - 1) / _SHORT_SEGMENT)
        short_table: list[int] = []
        long_table: list[int] = []
        for table in (column[:rows], column[rows:]):
            quarter = round((_SHORT_END - 1) / _LONG_SEGMENT)
            short_table += table[:short_rows]
            long_table += [*table[short_rows : short_rows + quarter], *table[short_rows:]]
        m.d.comb += o.eq(
            Mux(
                short,
                _select(short_table, Cat(fraction[_DISTANCE:-2], parity), len(o)),
                _select(long_table, Cat(fraction[_DISTANCE + 1 :], parity), len(o)),
            )
        )
        return o


def _select(table: Sequence[int], index: Value, width: int) -> Value:
    """A table of constants as a tree of multiplexers, which logic synthesis makes small; a memory would be a macro."""
    if len(table) == 1:
        return Const(table[0], width)
    half = len(table) // 2
    return Mux(index[-1], _select(table[half:], index[:-1], width), _select(table[:half], index[:-1], width))


def _coefficients() -> list[tuple[int, int, int]]:
    """Integers c0, c1, c2 of every segment, first those of even exponents. Exact but for their own last bits."""
    rows = []
    for parity in (0, 1):
        short = round((_SHORT_END - 1) / _SHORT_SEGMENT)
        long = round((2 - _SHORT_END) / _LONG_SEGMENT)
        starts = [1 + n * _SHORT_SEGMENT for n in range(short)] + [_SHORT_END + n * _LONG_SEGMENT for n in range(long)]
        for start in starts:
            # In units of half a step of m.
            width = round((_SHORT_SEGMENT if start < _SHORT_END else _LONG_SEGMENT) * 2 ** (_FRACTION + 1))
            middle = round(start * 2 ** (_FRACTION + 1)) + width // 2 - 1
            node = (isqrt(3 * width**2) + 2) // 4
            below, at, above = (_rsqrt(n << parity) for n in (middle - node, middle, middle + node))
            step = _FRACTION + 1
            rows.append(
                (
                    _round(at, _PRECISION - _C0) + 2 ** (_C0 - FP32.significand_bits - 1),
                    _round((below - above) * 2**step // (2 * node), _PRECISION - _C1),
                    _round((below + above - 2 * at) * 4**step // (2 * node**2), _PRECISION - _C2),
                )
            )
    return rows


_PRECISION = 120


def _rsqrt(n: int) -> int:
    """(n / 2^24)^(−1/2) in units of 2^−`_PRECISION`."""
    return isqrt(2 ** (2 * _PRECISION + _FRACTION + 1) // n)


def _round(value: int, shift: int) -> int:
    return (value + (1 << (shift - 1))) >> shift
