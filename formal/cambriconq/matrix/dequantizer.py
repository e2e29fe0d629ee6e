"""The dequantizer's round: four results in four cycles, each with its exponents, none else."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.arith.fp32 import delayed
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.int_to_fp32 import IntToFp32
from nibblecore.hdl.cambriconq.matrix.accumulator import RESULT_BITS
from nibblecore.hdl.cambriconq.matrix.dequantizer import ROWS, Dequantizer

__all__ = ["PROOFS"]


class TagConverter(IntToFp32):
    """Shows what it was given: the exponent, the ends of the integer."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        tag = Cat(self.i[:12], self.i[-11:], self.exponent)
        m.d.comb += [
            self.o.eq(delayed(m, tag, self.LATENCY, "tag")),
            self.o_valid.eq(delayed(m, self.i_valid, self.LATENCY, "valid", reset_less=False)),
        ]
        return m


class TagDequantizer(Dequantizer):
    _CONVERTER = TagConverter


class LateConverter(TagConverter):
    """A cycle late."""

    LATENCY = IntToFp32.LATENCY + 1


class LateDequantizer(Dequantizer):
    _CONVERTER = LateConverter


class DequantizerSpec(wiring.Component):
    """Every input is free, in every cycle, ``rst`` too."""

    def __init__(self, block: type[Dequantizer] = TagDequantizer) -> None:
        self.block = block
        super().__init__({"i_valid": In(1), "i": In(ROWS * RESULT_BITS), "e_a": In(8), "e_w": In(ROWS * 8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dequantizer = block = self.block()
        m.d.comb += [getattr(block, name).eq(getattr(self, name)) for name in self.signature.members]

        left = Signal(range(ROWS))  # rows of the round still to come
        begins = Signal()
        m.d.comb += begins.eq(self.i_valid & (left == 0))
        m.d.sync += left.eq(Mux(begins, ROWS - 1, Mux(left == 0, 0, left - 1)))
        row = Signal(range(ROWS))
        m.d.comb += row.eq(Mux(begins, 0, ROWS - left))
        value, exponent = Signal(RESULT_BITS), Signal(9)
        with m.Switch(row):
            for number in range(ROWS):
                with m.Case(number):
                    m.d.comb += [
                        value.eq(self.i.word_select(number, RESULT_BITS)),
                        exponent.eq(self.e_a.as_signed() + self.e_w.word_select(number, 8).as_signed()),
                    ]
        valid = delayed(m, begins | (left != 0), block.LATENCY, "valid", reset_less=False)
        shown_row = delayed(m, row, block.LATENCY, "shown_row")
        tag = delayed(m, Cat(value[:12], value[-11:], exponent), block.LATENCY, "tag")
        m.d.comb += [
            Assert(block.o_valid == valid),
            Assert(~valid | ((block.o_row == shown_row) & (block.o == tag))),
            Cover(valid & (shown_row == 3) & tag.all()),
            Cover(valid & (shown_row == 0) & (delayed(m, shown_row, 1, "before") == 3)),
        ]
        return m


PROOFS = [
    Proof(
        name="cambriconq.matrix.dequantizer.round",
        spec=DequantizerSpec,
        fault=lambda: DequantizerSpec(LateDequantizer),
        engine="induction",
        depth=2 * ROWS + Dequantizer.LATENCY + 1,
        cover_depth=14,
        reason="every round and the pipeline end within the depth; tags for numbers (arith.int_to_fp32 is proved by itself)",
    )
]
