"""What a unary function does before its cubic: the operand becomes a factor, a place in a table, and what is added in the end."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.arith.fp32 import FP32, unpack
from nibblecore.hdl.arith.fp32_rsqrt import Fp32Rsqrt
from nibblecore.hdl.arith.leading_zeros import leading_zeros
from nibblecore.hdl.cambriconq.program.isa import Unary
from nibblecore.hdl.emit.emit import emit_once

from .sfu_cubic import ARGUMENT_BITS, ONE, P_BITS, SEGMENT_BITS, U_BITS, Group

__all__ = ["BASE_BITS", "FACTOR_ONE", "Combination", "Place", "SfuOperand"]

_FRACTION, _BIAS = FP32.fraction_bits, FP32.bias
_INTEGER_BITS = 7
_FIXED_BITS = _INTEGER_BITS + ARGUMENT_BITS
"""|x| < 128 in units of 2^−27."""
BASE_BITS = _INTEGER_BITS + P_BITS
"""149 · ln 2 in units of 2^−28."""
_HALF = 2 ** (P_BITS - 1)
FACTOR_ONE = 2**_FRACTION
_LN2, _LN2_UNIT = 0xB17217F7D, 36
"""ln 2 in units of 2^−36."""
_LOG2_E, _LOG2_E_UNIT = 1477, 10
"""1 / ln 2 in units of 2^−10: finds the nearest multiple of ln 2, or the one beside it where they are about equally near."""
_COARSE = 8
"""Fraction bits of |x| that are looked at for that."""
_LARGEST_SHIFT = 31
_ONE_FROM = 5
"""Segment of `Group.TANH_FROM_8` from which on tanh is 1: 9.25."""
_TINY = -12
"""Below 2^−12, tanh(x) is x to half a unit in the last place."""


class Place(data.Struct):
    """Where a cubic is taken."""

    address: SEGMENT_BITS + 3
    u: U_BITS


class Combination(data.Struct):
    """The result is ± (base ± (factor · p) >> shift) · 2^exponent; factor in units of 2^−23, base of 2^−28."""

    factor: 24
    base: BASE_BITS
    shift: range(_LARGEST_SHIFT + 1)
    subtract: 1
    exponent: signed(10)
    sign: 1
    infinity: 1
    nan: 1


class _Operand(data.Struct):
    """What is known of x after stage 0 and travels on."""

    function: Unary
    sign: 1
    zero: 1
    infinity: 1
    nan: 1
    near_one: 1
    """The logarithm's x is in ¾..1½: what is normalized is |x − 1|, or |x/2 − 1| from 1½ on."""
    large: 1
    """|x| ≥ 128, or not a number."""


class _Plan(data.Struct):
    """After stage 2: all but what the multiple of ln 2 decides, and the function rsqrt."""

    function: Unary
    negative: 1
    group: Group
    one: 1
    """The cubic is replaced by 1."""
    argument: ARGUMENT_BITS + 1
    count: 8
    """How many times ln 2."""
    add_multiple: 1


@emit_once
class SfuOperand(wiring.Component):
    """Range reduction of all unary functions.

    Stage 0 splits x and counts zeros; 1 normalizes, and writes x in fixed point; 2 chooses everything that the function and x's
    exponent decide; 3 multiplies ln 2 by the exponent of the result (exp) or of x (log); 4 subtracts that from x (exp).
    `Fp32Rsqrt` works beside the first stages, and its result goes the way of a copied number from there.

    Latency: `LATENCY` = 5 cycles. Throughput: one operand a cycle. There is no valid bit: whoever has one carries it beside.

    Members
    -------
    unary : In(Unary)
        Of this ``i``.
    i : In(32)
        x, in FP32.
    place : Out(Place)
        Of the cubic.
    combination : Out(Combination)
        What its result is combined with.
    """

    LATENCY = 5

    def __init__(self) -> None:
        super().__init__({"unary": In(Unary), "i": In(32), "place": Out(Place), "combination": Out(Combination)})

    @property
    def module_name(self) -> str:
        return "sfu_operand"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rsqrt = rsqrt = Fp32Rsqrt()
        m.d.comb += rsqrt.i.eq(self.i)

        operand, factor, fraction, fixed, exponent = self._normalize(m)
        stage3_plan = Signal(_Plan, reset_less=True)
        stage3_combination = Signal(Combination, reset_less=True)
        plan = Signal(_Plan)
        combination = Signal(Combination)
        self._choose(m, operand, factor, fraction, fixed, exponent, plan, combination)
        m.d.sync += [stage3_plan.eq(plan), stage3_combination.eq(combination)]

        # Stage 3.
        stage4_plan = Signal(_Plan, reset_less=True)
        stage4_combination = Signal(Combination, reset_less=True)
        multiple = Signal(BASE_BITS, reset_less=True)
        count = Signal(signed(9))
        m.d.comb += count.eq(Mux(stage3_plan.negative, -stage3_plan.count, stage3_plan.count))
        m.d.sync += [
            stage4_plan.eq(stage3_plan),
            stage4_combination.eq(stage3_combination),
            multiple.eq((stage3_plan.count * _LN2 + 2 ** (_LN2_UNIT - P_BITS - 1)) >> (_LN2_UNIT - P_BITS)),
        ]
        with m.If(stage3_plan.function == Unary.EXP):
            m.d.sync += stage4_combination.exponent.eq(count)
        with m.Elif(stage3_plan.function == Unary.RSQRT):
            root = unpack(m, rsqrt.o, FP32, "root")
            m.d.sync += [
                stage4_combination.factor.eq(root.significand),
                stage4_combination.exponent.eq(root.exponent - _BIAS),
                stage4_combination.sign.eq(0),
                stage4_combination.infinity.eq(0),
                stage4_combination.nan.eq(root.nan),
            ]

        # Stage 4: |x| less the multiple, or the multiple less |x| = ~(|x| + ~multiple).
        rest = Signal(ARGUMENT_BITS + 1)
        argument = Signal(ARGUMENT_BITS)
        negative = stage4_plan.negative
        m.d.comb += [
            rest.eq(stage4_plan.argument + ~multiple[1 : 1 + len(rest)] + ~negative),
            argument.eq(Mux(stage4_plan.function == Unary.EXP, rest ^ negative.replicate(len(rest)), stage4_plan.argument)),
        ]
        place = Signal(Place, reset_less=True)
        o = Signal(Combination, reset_less=True)
        m.d.sync += [
            place.u.eq(argument),
            place.address.eq(Mux(stage4_plan.one, ONE, Cat(argument[U_BITS:], stage4_plan.group))),
            o.eq(stage4_combination),
            o.base.eq(Mux(stage4_plan.add_multiple, multiple, stage4_combination.base)),
        ]
        m.d.comb += [self.place.eq(place), self.combination.eq(o)]
        return m

    def _normalize(self, m: Module) -> tuple[data.View, Signal, Signal, Signal, Signal]:
        """Stages 0 and 1: x, a factor in 1..2 or 0 and its exponent, x's own fraction, and |x| in fixed point."""
        x = unpack(m, self.i, FP32, "x")
        field, fraction, upper = self.i[_FRACTION:-1], self.i[:_FRACTION], self.i[_FRACTION - 1]
        near_one = Signal()
        far_below = Signal()
        halve = Signal()
        excess = Signal(_FRACTION)
        counted = Signal(FP32.significand_bits)
        zeros = Signal(range(FP32.significand_bits + 1))
        m.d.comb += [
            near_one.eq((self.unary == Unary.LOG) & ~x.sign & (field == Mux(upper, _BIAS - 1, _BIAS))),
            # x − 1, or 1 − x/2, in units of 2^−24.
            excess.eq(Mux(upper, -fraction, fraction << 1)),
            counted.eq(Mux(near_one, excess, x.significand)),
            zeros.eq(leading_zeros(counted)),
            halve.eq(self.unary == Unary.SIGMOID),
            far_below.eq(halve & x.sign & (field >= _BIAS + 4)),
        ]
        stage1 = Signal(_Operand, reset_less=True)
        stage2 = Signal(_Operand, reset_less=True)
        stage1_counted = Signal.like(counted, reset_less=True)
        stage1_zeros = Signal.like(zeros, reset_less=True)
        stage1_fraction = Signal(_FRACTION, reset_less=True)
        stage1_exponent = Signal(signed(9), reset_less=True)
        stage1_distance = Signal(6, reset_less=True)
        distance = Signal(signed(10))
        m.d.comb += distance.eq(_BIAS + _INTEGER_BITS - 1 + (halve & ~far_below) - field)
        m.d.sync += [
            # Below −16 the sigmoid is e^x.
            stage1.function.eq(Mux(far_below, Unary.EXP, self.unary)),
            stage1.sign.eq(x.sign),
            stage1.zero.eq(x.zero),
            stage1.infinity.eq(x.infinity),
            stage1.nan.eq(x.nan),
            stage1.near_one.eq(near_one),
            stage1.large.eq(field >= _BIAS + _INTEGER_BITS),
            stage1_counted.eq(counted),
            stage1_zeros.eq(zeros),
            stage1_fraction.eq(fraction),
            stage1_exponent.eq(Mux(near_one, -1, x.exponent - _BIAS)),
            stage1_distance.eq(Mux(distance[6:].any(), 63, distance)),
        ]

        # Stage 1.
        normalized = Signal(FP32.significand_bits)
        aligned = Signal(_FIXED_BITS)
        m.d.comb += [
            normalized.eq(stage1_counted << stage1_zeros),
            aligned.eq(Cat(Const(0, _FIXED_BITS - FP32.significand_bits), stage1_counted) >> stage1_distance),
        ]
        factor = Signal(FP32.significand_bits, reset_less=True)
        stage2_fraction = Signal(_FRACTION, reset_less=True)
        fixed = Signal(_FIXED_BITS, reset_less=True)
        exponent = Signal(signed(9), reset_less=True)
        m.d.sync += [
            stage2.eq(stage1),
            factor.eq(normalized),
            fixed.eq(aligned),
            exponent.eq(stage1_exponent - stage1_zeros),
            stage2_fraction.eq(Mux(stage1.near_one, stage1_fraction, normalized)),
        ]
        return stage2, factor, stage2_fraction, fixed, exponent

    def _choose(
        self,
        m: Module,
        x: data.View,
        factor: Signal,
        fraction: Signal,
        fixed: Signal,
        exponent: Signal,
        plan: data.View,
        o: data.View,
    ) -> None:
        """Stage 2."""
        upper = fraction[-1]
        # exp: the multiple of ln 2 nearest to |x|.
        coarse, unit = fixed[ARGUMENT_BITS - _COARSE :], _COARSE + _LOG2_E_UNIT
        multiple = Signal(8)
        m.d.comb += multiple.eq((coarse * _LOG2_E + 2 ** (unit - 1)) >> unit)
        # log: x = 2^scale · (1 + z), z in −¼..½.
        scale = Signal(signed(9))
        scale_negative = Signal()
        m.d.comb += [scale.eq(exponent + upper), scale_negative.eq(scale < 0)]
        # tanh, of half of x for the sigmoid: its exponent decides on the group.
        halve = Signal()
        height = Signal(signed(10))
        below_one = Signal()
        saturated = Signal()
        m.d.comb += [
            halve.eq(x.function == Unary.SIGMOID),
            height.eq(exponent - halve),
            below_one.eq(height < 0),
            saturated.eq((height > 3) | ((height == 3) & (fraction[-SEGMENT_BITS:] >= _ONE_FROM))),
        ]

        m.d.comb += [
            plan.function.eq(x.function),
            plan.negative.eq(x.sign),
            plan.argument.eq(fraction << (ARGUMENT_BITS - _FRACTION)),
            o.factor.eq(factor),
            o.exponent.eq(exponent),
            o.sign.eq(x.sign),
            o.infinity.eq(x.infinity),
            o.nan.eq(x.nan),
        ]
        with m.Switch(x.function):
            with m.Case(Unary.COPY, Unary.RSQRT):
                m.d.comb += plan.one.eq(1)
            with m.Case(Unary.RELU):
                m.d.comb += [plan.one.eq(1), o.factor.eq(Mux(x.sign, 0, factor)), o.sign.eq(0), o.infinity.eq(x.infinity & ~x.sign)]
            with m.Case(Unary.EXP):
                m.d.comb += [
                    plan.group.eq(Group.EXP),
                    plan.argument.eq(fixed),
                    plan.count.eq(multiple),
                    o.factor.eq(Mux(x.large & x.sign, 0, FACTOR_ONE)),
                    o.sign.eq(0),
                    o.infinity.eq(x.large & ~x.sign),
                ]
            with m.Case(Unary.LOG):
                m.d.comb += [
                    plan.group.eq(Group.LOG),
                    plan.count.eq(Mux(scale_negative, -scale, scale)),
                    plan.add_multiple.eq(~x.near_one),
                    # z − 1 has the bits of the fraction.
                    plan.argument.eq(Mux(upper, Cat(Const(0, 3), fraction, Const(3, 2)), fraction << 4)),
                    o.nan.eq(x.nan | (x.sign & ~x.zero)),
                    o.infinity.eq(x.infinity | x.zero),
                    o.sign.eq(Mux(x.near_one, upper, scale_negative)),
                ]
                with m.If(~x.near_one):
                    m.d.comb += [
                        o.factor.eq(Mux(upper, (-fraction)[:_FRACTION], fraction << 1)),
                        o.exponent.eq(0),
                        o.shift.eq(1),
                        o.subtract.eq(scale_negative ^ upper),
                    ]
            with m.Case(Unary.RECIPROCAL):
                m.d.comb += [
                    plan.group.eq(Group.RECIPROCAL),
                    o.factor.eq(Mux(x.infinity, 0, FACTOR_ONE)),
                    o.exponent.eq(-exponent),
                    o.infinity.eq(x.zero),
                ]
            with m.Case(Unary.SIGMOID, Unary.TANH):
                m.d.comb += [
                    plan.group.eq(Mux(below_one, Group.TANH, Cat(height[:2], Const(1, 1)))),
                    plan.one.eq(saturated | (height < _TINY)),
                    o.factor.eq(Mux(saturated, FACTOR_ONE, factor)),
                    o.exponent.eq(Mux(halve | ~below_one, 0, exponent)),
                    o.base.eq(Mux(halve, _HALF, 0)),
                    o.subtract.eq(halve & x.sign),
                    o.sign.eq(x.sign & ~halve),
                    o.infinity.eq(0),
                ]
                with m.If(halve):
                    m.d.comb += o.shift.eq(Mux(below_one, Mux(height <= 1 - _LARGEST_SHIFT, _LARGEST_SHIFT, 1 - height), 1))
                with m.If(below_one):
                    m.d.comb += plan.argument.eq(fixed[:ARGUMENT_BITS])
