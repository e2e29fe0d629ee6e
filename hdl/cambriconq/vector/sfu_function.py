"""The unary functions of VFUN in FP32."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.arith.fp32 import FP32
from nibblecore.hdl.arith.fp32_round import Fp32Round
from nibblecore.hdl.cambriconq.program.isa import Unary
from nibblecore.hdl.emit.emit import emit_once

from .sfu_cubic import P_BITS, SfuCubic
from .sfu_operand import BASE_BITS, Combination, SfuOperand

__all__ = ["SfuFunction"]


@emit_once
class SfuFunction(wiring.Component):
    """``o`` = ``unary``(``i``): copy, ReLU, exp, log, reciprocal, rsqrt, sigmoid or tanh (`isa.Unary`).

    Copy, ReLU and special values are exact; the others are within one unit in the last place, the sigmoid only from 0 on (below, see
    docs/blocks/cambriconq/vector/sfu_function.md). Subnormal numbers in and out. ReLU of −0 is +0; every NaN result is 0x7FC00000.

    One way for all: ± (base ± (factor · p) >> shift) · 2^exponent, rounded once, where p is a cubic from a table.

    Latency: `LATENCY` = 13 cycles, whatever the function. Throughput: one result a cycle; nothing ever waits. Without ``o_valid`` a result
    means nothing.

    Members
    -------
    i_valid : In(1)
        There is an operand.
    unary : In(Unary)
        Of this ``i``.
    i : In(32)
        In FP32.
    o_valid : Out(1)
        ``i_valid``, `LATENCY` cycles later.
    o : Out(32)
        In FP32; for one cycle.
    """

    LATENCY = SfuOperand.LATENCY + SfuCubic.LATENCY + 2 + Fp32Round.LATENCY
    # The proof puts other parts here.
    _OPERAND: type[SfuOperand] = SfuOperand
    _CUBIC: type[SfuCubic] = SfuCubic

    def __init__(self) -> None:
        super().__init__({"i_valid": In(1), "unary": In(Unary), "i": In(32), "o_valid": Out(1), "o": Out(32)})

    @property
    def module_name(self) -> str:
        return "sfu_function"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid = Signal(self.LATENCY)
        m.d.sync += valid.eq(Cat(self.i_valid, valid))

        m.submodules.operand = operand = self._OPERAND()
        m.submodules.cubic = cubic = self._CUBIC()
        m.submodules.round = round_ = Fp32Round(BASE_BITS, max_left=BASE_BITS - 1, right=True, exponent_width=10)
        m.d.comb += [
            operand.unary.eq(self.unary),
            operand.i.eq(self.i),
            cubic.address.eq(operand.place.address),
            cubic.u.eq(operand.place.u),
        ]
        combination = operand.combination
        for cycle in range(SfuCubic.LATENCY):
            register = Signal(Combination, name=f"combination{cycle}", reset_less=True)
            m.d.sync += register.eq(combination)
            combination = register

        # The product, in units of 2^−28 from here on.
        cut = FP32.fraction_bits + P_BITS - 1 - P_BITS
        product = Signal(P_BITS + 2, reset_less=True)
        stage1 = Signal(Combination, reset_less=True)
        m.d.sync += [product.eq((combination.factor * cubic.p) >> cut), stage1.eq(combination)]

        # The sum. It is never negative.
        shifted = Signal(P_BITS + 2)
        total = Signal(BASE_BITS, reset_less=True)
        stage2 = Signal(Combination, reset_less=True)
        m.d.comb += shifted.eq(product >> stage1.shift)
        m.d.sync += [stage2.eq(stage1), total.eq(stage1.base + (shifted ^ stage1.subtract.replicate(BASE_BITS)) + stage1.subtract)]
        m.d.comb += [
            round_.i.eq(total),
            round_.exponent.eq(stage2.exponent + (FP32.bias + BASE_BITS - 1 - P_BITS)),
            round_.sign.eq(stage2.sign),
            round_.infinity.eq(stage2.infinity),
            round_.nan.eq(stage2.nan),
            self.o.eq(round_.o),
            self.o_valid.eq(valid[-1]),
        ]
        return m
