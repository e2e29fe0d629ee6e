"""The wide array's drain: every result in its cycle, none mixed with another, and validity beside them."""

from typing import Any

from amaranth import Module, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.array import WideArray
from nibblecore.hdl.ltoaq.pe import WidePe

__all__ = ["PROOFS"]

ROWS, COLS, GROUP = 3, 2, 2


class DrainSpec(wiring.Component):
    """Words are free; boundaries are skewed and `drain_cycles` apart. A lone PE for each place says what must come out when."""

    def __init__(self, drain_group: int = GROUP) -> None:
        self.drain_group = drain_group
        super().__init__({"a": In(24 * ROWS), "w": In(24 * COLS), "boundary": In(1), "eight_bit": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.array = array = WideArray(ROWS, COLS, self.drain_group)
        skewed = Signal(ROWS - 1)
        m.d.sync += skewed.eq((skewed << 1) | self.boundary)
        boundaries = [self.boundary, *skewed]
        for row, boundary in enumerate(boundaries):
            m.d.comb += array.boundary[row].eq(boundary)
        m.d.comb += [array.a.eq(self.a), array.w.eq(self.w), array.eight_bit.eq(self.eight_bit)]

        distance = ROWS + (ROWS - 1) // GROUP
        since = Signal(range(distance), init=distance - 1)
        with m.If(self.boundary):
            m.d.sync += since.eq(0)
        with m.Elif(since != distance - 1):
            m.d.sync += since.eq(since + 1)
        m.d.comb += Assume(~self.boundary | (since == distance - 1))

        due_in_column0 = []
        for col in range(COLS):
            w = self.w.word_select(col, 24)
            for row in range(ROWS):
                m.submodules[f"pe{row}_{col}"] = pe = WidePe()
                # What reaches PE (row, col) of the array has passed `col` PEs from the left and `row` from above.
                a_word, boundary = self.a.word_select(row, 24), boundaries[row]
                for place in range(col):
                    a_late, boundary_late = Signal(24, name=f"a{row}_{col}_{place}", reset_less=True), Signal(name=f"b{row}_{col}_{place}")
                    m.d.sync += [a_late.eq(a_word), boundary_late.eq(boundary)]
                    a_word, boundary = a_late, boundary_late
                m.d.comb += [pe.a.eq(a_word), pe.w.eq(w), pe.boundary.eq(boundary), pe.eight_bit.eq(self.eight_bit)]
                w = pe.w_next
                value, due = pe.drain_out, pe.boundary_next
                for stage in range(1 + row // GROUP):
                    value_late, due_late = Signal(33, name=f"value{row}_{col}_{stage}", reset_less=True), Signal(name=f"due{row}_{col}_{stage}")
                    m.d.sync += [value_late.eq(value), due_late.eq(due)]
                    value, due = value_late, due_late
                m.d.comb += [
                    Assert(~due | (array.result.word_select(col, 32) == value[:32])),
                    Assert(~due | (array.overflow[col] == value[32])),
                    Cover(due & (value[:32] == 0x1234) & (row == ROWS - 1) & (col == COLS - 1)) if (row, col) == (ROWS - 1, COLS - 1) else [],
                ]
                if col == 0:
                    due_in_column0.append(due)
        any_due = Signal()
        for due in due_in_column0:
            with m.If(due):
                m.d.comb += any_due.eq(1)
        m.d.comb += Assert(array.result_valid == any_due)
        return m


PROOFS = [
    Proof(
        name="ltoaq.array.drain", spec=DrainSpec, fault=lambda: DrainSpec(GROUP + 1), engine="bmc", depth=14, cover_depth=12,
        reason="14 cycles hold three passes at the least spacing of a 3 × 2 array with two drain groups, and what a reset leaves behind",
    ),
]  # fmt: skip
