"""Results of the PE array become numbers again: an integer and two exponents to FP32."""

from amaranth import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.arith.int_to_fp32 import IntToFp32
from nibblecore.hdl.emit.emit import emit_once

from .accumulator import RESULT_BITS

__all__ = ["EXPONENT_BITS", "ROWS", "Dequantizer"]

ROWS = 4
"""Accumulators that share a dequantizer: a result leaves each at most every fourth cycle."""

EXPONENT_BITS = 8


@emit_once
class Dequantizer(wiring.Component):
    """``o`` = q · 2^(``e_a`` + e_w) in FP32 for the results q of four accumulators in turn (paper, Section IV-D).

    Rounded once, to nearest, ties to even; subnormal numbers, and overflow to infinity. 0 gives +0. Every q of 38 bits and all
    exponents are legal.

    A cycle with ``i_valid`` begins a round: row r is read r cycles after it, so ``i``, ``e_a`` and ``e_w`` hold for four cycles, as
    accumulators do. Within a round ``i_valid`` counts for nothing.

    Latency: `LATENCY` = 3 cycles from ``i_valid`` to row 0, rows 1 to 3 in the cycles after. Throughput: a number a cycle, a round every
    four. A reset drops what is inside and ends the round.

    Members
    -------
    i_valid : In(1)
    i : In(4 * 38)
        Results, signed, row 0 least significant; likewise ``e_w``.
    e_a : In(signed(8))
        Exponent of the inputs' tag.
    e_w : In(4 * 8)
        Signed exponents of the weights' tags.
    o_valid : Out(1)
        There is a number in this cycle.
    o_row : Out(2)
        Which row's.
    o : Out(32)
    """

    LATENCY = 1 + IntToFp32.LATENCY
    # The proof puts a simpler part here.
    _CONVERTER: type[IntToFp32] = IntToFp32

    def __init__(self) -> None:
        super().__init__(
            {
                "i_valid": In(1),
                "i": In(ROWS * RESULT_BITS),
                "e_a": In(signed(EXPONENT_BITS)),
                "e_w": In(ROWS * EXPONENT_BITS),
                "o_valid": Out(1),
                "o_row": Out(range(ROWS)),
                "o": Out(32),
            }
        )

    @property
    def module_name(self) -> str:
        return "dequantizer"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row = Signal(range(ROWS))
        active = Signal()
        m.d.comb += active.eq(self.i_valid | (row != 0))
        m.d.sync += row.eq(row + active)

        result = Signal(signed(RESULT_BITS))
        exponent_w = Signal(signed(EXPONENT_BITS))
        m.d.comb += [result.eq(self.i.word_select(row, RESULT_BITS)), exponent_w.eq(self.e_w.word_select(row, EXPONENT_BITS))]
        stage1_result = Signal.like(result, reset_less=True)
        stage1_exponent = Signal(signed(EXPONENT_BITS + 1), reset_less=True)
        stage1_valid = Signal()
        m.d.sync += [stage1_result.eq(result), stage1_exponent.eq(self.e_a + exponent_w), stage1_valid.eq(active)]

        m.submodules.converter = converter = self._CONVERTER(RESULT_BITS, EXPONENT_BITS + 1)
        m.d.comb += [
            converter.i_valid.eq(stage1_valid),
            converter.i.eq(stage1_result),
            converter.exponent.eq(stage1_exponent),
            self.o.eq(converter.o),
            self.o_valid.eq(converter.o_valid),
        ]
        rows = [row]
        for stage in range(self.LATENCY):
            rows.append(Signal(range(ROWS), name=f"row{stage + 1}", reset_less=True))
            m.d.sync += rows[-1].eq(rows[-2])
        m.d.comb += self.o_row.eq(rows[-1])
        return m
