"""The accumulator in two stages against one wide sum."""

from typing import Any

from amaranth import Module, Mux, Signal, signed
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.arith.fp32 import delayed
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.matrix.accumulator import RESULT_BITS, Accumulator, Step

__all__ = ["PROOFS"]

SUM_BITS = 15


class FaultyAccumulator(Accumulator):
    """Shifts by five bits."""

    _NIBBLE = 5


class AccumulatorSpec(wiring.Component):
    """Every input is free, ``rst`` too, which drops results but no sums."""

    def __init__(self, block: type[Accumulator] = Accumulator) -> None:
        self.block = block
        super().__init__({"i_valid": In(1), "i_sum": In(signed(SUM_BITS)), "i_step": In(Step)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.accumulator = block = self.block(SUM_BITS)
        m.d.comb += [getattr(block, name).eq(getattr(self, name)) for name in self.signature.members]

        total = Signal(signed(RESULT_BITS), reset_less=True)
        with m.If(self.i_valid):
            m.d.sync += total.eq(Mux(self.i_step.first, 0, total * Mux(self.i_step.shift, 16, 1)) + self.i_sum)
        old_total = delayed(m, total, 1, "old_total")
        split = len(block.low)
        m.d.comb += [Assert(block.low == total[:split]), Assert(block.high == old_total[split:])]

        last = Signal()
        m.d.sync += last.eq(self.i_valid & self.i_step.last)
        done = delayed(m, last, 1, "done", reset_less=False)
        result = Signal(RESULT_BITS, reset_less=True)
        with m.If(last):
            m.d.sync += result.eq(total)
        m.d.comb += [
            Assert(block.o_valid == done),
            Assert(~done | (block.o.as_unsigned() == old_total.as_unsigned())),
            Assert(block.o.as_unsigned() == result),
            Cover(done & (old_total < -(2**28))),
            Cover(done & (old_total > 2**28)),
        ]
        return m


PROOFS = [
    Proof(
        name="cambriconq.matrix.accumulator.sum",
        spec=AccumulatorSpec,
        fault=lambda: AccumulatorSpec(FaultyAccumulator),
        engine="induction",
        depth=4,
        cover_depth=9,
        reason="the reference's total is the block's, whose upper bits lag by a cycle; so one step carries over to the next",
    )
]
