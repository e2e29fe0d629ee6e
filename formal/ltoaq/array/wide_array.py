"""The wide array's drain: every result in its cycle, none mixed with another, and validity beside them."""

from typing import Any

from amaranth import Cat, Module, Mux, ResetSignal, Signal
from amaranth.hdl import Assert, Assume, Cover, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.array.wide_array import WideArray, WideColumn
from nibblecore.hdl.ltoaq.array.wide_pe import WidePe

__all__ = ["PROOFS"]

ROWS, COLS, GROUP = 3, 2, 2
DISTANCE = ROWS + (ROWS - 1) // GROUP


class TagPe(WidePe):
    """A PE that drains its boundary's own words instead of a sum: every result tells where and when it was made."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.sync += [self.a_next.eq(self.a), self.w_next.eq(self.w), self.boundary_next.eq(self.boundary)]
        tag = Cat(self.a_next, self.w_next[:9])
        m.d.comb += self.drain_out.eq(self.drain_in | Mux(self.boundary_next, tag, 0))
        return m


class TagColumn(WideColumn):
    _PE = TagPe


class TagArray(WideArray):
    _COLUMN = TagColumn


class MisgroupedArray(TagArray):
    """Registers the bus above one row too many."""

    def __init__(self, rows: int, cols: int, drain_group: int) -> None:
        super().__init__(rows, cols, drain_group + 1)


class DrainSpec(wiring.Component):
    """Words are free, boundaries are skewed and at least `DISTANCE` apart, row 0's in `boundary`; no reset after power-up."""

    def __init__(self, block: type[WideArray] = TagArray) -> None:
        self.block = block
        super().__init__({"a": In(24 * ROWS), "w": In(24 * COLS), "boundary": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.array = array = self.block(ROWS, COLS, GROUP)
        boundaries: list[Value] = [self.boundary]
        for row in range(1, ROWS):
            boundaries.append(self._later(m, boundaries[-1], 1, f"boundary{row}"))
        m.d.comb += [array.a.eq(self.a), array.w.eq(self.w), array.boundary.eq(Cat(boundaries))]

        since = Signal(range(DISTANCE), init=DISTANCE - 1)
        with m.If(self.boundary):
            m.d.sync += since.eq(0)
        with m.Elif(since != DISTANCE - 1):
            m.d.sync += since.eq(since + 1)
        m.d.comb += [Assume(~self.boundary | (since == DISTANCE - 1)), Assume(~ResetSignal())]

        due_in_column0 = []
        for row in range(ROWS):
            for col in range(COLS):
                # The words meet in the PE after passing `col` PEs from the left and `row` from above, and drain from its registers.
                place = f"{row}_{col}"
                tag = Cat(
                    self._later(m, self.a.word_select(row, 24), col, f"a{place}"),
                    self._later(m, self.w.word_select(col, 24)[:9], row, f"w{place}"),
                )
                delay = 2 + row // GROUP
                value = self._later(m, tag, delay, f"value{place}")
                due = self._later(m, boundaries[row], col + delay, f"due{place}")
                shown = Cat(array.result.word_select(col, 32), array.overflow[col])
                m.d.comb += [Assert(~due | (shown == value)), Cover(due & value.all())]
                if col == 0:
                    due_in_column0.append(due)
        m.d.comb += Assert(array.result_valid == Cat(due_in_column0).any())
        return m

    @staticmethod
    def _later(m: Module, value: Value, cycles: int, name: str) -> Value:
        for cycle in range(cycles):
            register = Signal.like(value, name=f"{name}_{cycle}")
            m.d.sync += register.eq(value)
            value = register
        return value


PROOFS = [
    Proof(
        name="ltoaq.array.wide_array.drain",
        spec=DrainSpec,
        fault=lambda: DrainSpec(MisgroupedArray),
        engine="induction",
        depth=DISTANCE + ROWS + COLS + 4,
        cover_depth=12,
        reason="3 × 2 PEs in two drain groups, tags for sums (ltoaq.array.wide_pe.contract_4 and _8 prove those); pipelines empty within "
        "the depth",
    )
]
