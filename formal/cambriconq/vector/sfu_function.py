"""Special values of the unary functions are exact, whatever the cubics give."""

from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.arith.fp32 import delayed, infinity, is_infinity, is_nan, quiet_nan
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.fp32 import FP32
from nibblecore.hdl.cambriconq.program.isa import Unary
from nibblecore.hdl.cambriconq.vector.sfu_cubic import ONE, P_BITS, SfuCubic
from nibblecore.hdl.cambriconq.vector.sfu_function import SfuFunction
from nibblecore.hdl.cambriconq.vector.sfu_operand import SfuOperand

__all__ = ["PROOFS"]

_MINUS = 1 << 31
_ONE, _HALF = 0x3F800000, 0x3F000000


class AnyCubic(SfuCubic):
    """Anything, but 1 where the table holds 1."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.p.eq(Mux(delayed(m, self.address, self.LATENCY, "address") == ONE, 2 ** (P_BITS - 1), AnySeq(P_BITS)))
        return m


class KeepsSign(SfuOperand):
    """Forgets that ReLU cuts off negative numbers."""

    def _choose(self, m: Module, x: Any, *rest: Any) -> None:
        plain = Signal.like(x)
        m.d.comb += [plain.eq(x), plain.sign.eq(x.sign & (x.function != Unary.RELU))]
        super()._choose(m, plain, *rest)


class AbstractFunction(SfuFunction):
    _CUBIC = AnyCubic


class FaultyFunction(AbstractFunction):
    _OPERAND = KeepsSign


class SpecialSpec(wiring.Component):
    """Any operand and function, at the depth of the pipeline."""

    def __init__(self, block: type[SfuFunction] = AbstractFunction) -> None:
        self.block = block
        super().__init__({"i_valid": In(1), "unary": In(Unary), "i": In(FP32.width)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = self.block()
        m.d.comb += [dut.i_valid.eq(self.i_valid), dut.unary.eq(self.unary), dut.i.eq(self.i)]
        i, unary = delayed(m, self.i, dut.LATENCY, "i"), delayed(m, Value.cast(self.unary), dut.LATENCY, "unary")
        valid = delayed(m, self.i_valid, dut.LATENCY, "valid", reset_less=False)
        m.d.comb += Assert(dut.o_valid == valid)
        negative, zero, infinite = i[-1], i[:-1] == 0, is_infinity(i, FP32)
        sign = negative << 31
        everywhere = infinity(FP32)

        def gives(value: Any) -> None:
            m.d.comb += Assert(dut.o == value)

        large, tiny = i[:-1], i[:-1] < 0x39800000
        rules = {
            Unary.COPY: [(True, i)],
            Unary.RELU: [(True, Mux(negative, 0, i))],
            Unary.EXP: [(large >= 0x43000000, Mux(negative, 0, everywhere))],
            Unary.LOG: [
                (zero, _MINUS | everywhere),
                (negative & ~zero, quiet_nan(FP32)),
                (i == everywhere, everywhere),
                (i == _ONE, 0),
            ],
            Unary.RECIPROCAL: [(zero, sign | everywhere), (infinite, sign)],
            Unary.RSQRT: [(zero | (i == everywhere), 0), (negative & ~zero, quiet_nan(FP32))],
            Unary.SIGMOID: [(zero, _HALF), ((large >= 0x41940000) & ~negative, _ONE), (infinite & negative, 0)],
            Unary.TANH: [(zero | tiny, i), (large >= 0x41140000, sign | _ONE)],
        }
        m.d.comb += [
            Cover(valid & (unary == Unary.COPY.value) & (dut.o == _MINUS | 1)),
            Cover(valid & (unary == Unary.TANH.value) & (dut.o == _ONE)),
        ]
        with m.If(valid & is_nan(i, FP32)):
            m.d.comb += Assert(dut.o == quiet_nan(FP32))
        for function, cases in rules.items():
            for condition, result in cases:
                with m.If(valid & ~is_nan(i, FP32) & (unary == function.value) & condition):
                    m.d.comb += Assert(dut.o == result)
        return m


PROOFS = [
    Proof(
        name="cambriconq.vector.sfu_function.special",
        spec=SpecialSpec,
        fault=lambda: SpecialSpec(FaultyFunction),
        engine="bmc",
        depth=SfuFunction.LATENCY + 1,
        cover_depth=SfuFunction.LATENCY + 2,
        reason="a pipeline without feedback: the cycles that fill it are everything; the cubic, whose products "
        "no solver can take, may give anything but where its table holds 1",
    )
]
