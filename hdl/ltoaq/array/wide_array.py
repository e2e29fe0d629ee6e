"""The wide array: an output-stationary systolic array of fixed timing."""

from amaranth import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .pair_packer import PairPacker
from .wide_pe import DRAIN_BITS, LANE_BITS, WidePe, word_bits

__all__ = ["WideArray", "WideColumn"]


@emit_once
class WideColumn(wiring.Component):
    """One column of PEs with its drain bus.

    W moves down, A and the boundaries pass to the column on the right. The bus runs from the last row to row 0, an AND-OR
    through the PEs; it is registered above every ``drain_group`` rows.

    Latency: A and boundaries pass to the right in one cycle. With the boundary of row i at its input in cycle t, that row's result is on
    ``drain`` in cycle t + 2 + i // drain_group. Throughput: a word a row and cycle; a result a cycle on the bus.

    Parameters
    ----------
    rows : int
    drain_group : int
        Rows whose results share a clock cycle of the bus.
    lanes, paired : int, bool
        Of each PE.

    Members
    -------
    a : In(rows * word_bits(lanes, paired))
        Row 0 least significant.
    a_next : Out(rows * word_bits(lanes, paired))
        ``a``, a cycle later.
    boundary : In(rows)
        A bit a row.
    boundary_next : Out(rows)
        ``boundary``, a cycle later.
    w : In(word_bits(lanes, paired))
        Of row 0; row i sees it i cycles later.
    eight_bit : In(1)
    drain : Out(33)
        Accumulator and overflow flag; all zero in a cycle without a result.
    """

    _PE: type[WidePe] = WidePe

    def __init__(self, rows: int, drain_group: int, lanes: int = 4, paired: bool = False) -> None:
        self.rows, self.drain_group, self.lanes, self.paired = rows, drain_group, lanes, paired
        word = word_bits(lanes, paired)
        super().__init__(
            {
                "a": In(rows * word),
                "boundary": In(rows),
                "w": In(word),
                "eight_bit": In(1),
                "a_next": Out(rows * word),
                "boundary_next": Out(rows),
                "drain": Out(DRAIN_BITS),
            }
        )

    @property
    def module_name(self) -> str:
        return f"wide_column_{self.rows}_{self.drain_group}_{self.lanes}{'_paired' * self.paired}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pes = [self._PE(self.lanes, self.paired) for _ in range(self.rows)]
        w = self.w
        for row, pe in enumerate(pes):
            m.submodules[f"pe{row}"] = pe
            m.d.comb += [
                pe.a.eq(self.a.word_select(row, len(w))),
                pe.w.eq(w),
                pe.boundary.eq(self.boundary[row]),
                pe.eight_bit.eq(self.eight_bit),
            ]
            w = pe.w_next
        m.d.comb += [self.a_next.eq(Cat(pe.a_next for pe in pes)), self.boundary_next.eq(Cat(pe.boundary_next for pe in pes))]
        bus = Const(0, DRAIN_BITS)
        for row, pe in reversed(list(enumerate(pes))):
            m.d.comb += pe.drain_in.eq(bus)
            bus = pe.drain_out
            if row % self.drain_group == 0:
                stage = Signal(DRAIN_BITS, name=f"drain{row // self.drain_group}", reset_less=True)
                m.d.sync += stage.eq(bus)
                bus = stage
        m.d.comb += self.drain.eq(bus)
        return m


class WideArray(wiring.Component):
    """rows × cols PEs: C = A·Wᵀ for operands that the caller feeds skewed.

    PE (i, j) sums row i of A times row j of W (see `WidePe` for the words and modes). The caller presents word n of row i in
    cycle n + i at ``a`` and word n of column j in cycle n + j at ``w``; ``boundary`` goes with the words of A and marks the first
    word of a pass. Words that belong to no pass are zero.

    Every boundary pushes out the results of the pass before it, rows × cols of them, each column's in row order. The first
    boundary after power-up or reset pushes out values that mean nothing, which the caller drops; a zero word may carry a
    boundary that only pushes. A reset empties the drain and forgets the boundaries under way; words under way die out.

    Latency: with row 0's boundary word in cycle t, the result of row i in column j is on ``result`` in cycle t + `result_delay` (i) + j,
    `result_delay` (i) being 2 + i + i // drain_group. Boundaries must be at least `drain_cycles` apart, else results collide on the bus.
    ``eight_bit`` may change rows + cols cycles after row 0's last word other than zero.

    Throughput: rows × cols words a cycle, at any distance of boundaries that is allowed.

    Parameters
    ----------
    rows, cols : int
        At least 1.
    drain_group : int
        Rows whose results share a clock cycle of the drain bus, at least 1; sets its combinational depth and the drain's flip-flops.
    lanes, paired : int, bool
        Of each PE. Paired, a `PairPacker` stands before every row and column, and ``eight_bit`` holds from the cycle on in which a word other
        than zero is presented, not one later.

    Members
    -------
    a : In(rows * 6 * lanes)
        Row 0 least significant; likewise all that follows.
    boundary : In(rows)
        A bit a row.
    w : In(cols * 6 * lanes)
    eight_bit : In(1)
    result : Out(cols * 32)
        Signed.
    overflow : Out(cols)
        A bit a column: some step of the result's pass overflowed.
    result_valid : Out(1)
        Column 0 shows a result; column j's follows j cycles later.
    """

    # The proof of the drain puts simpler parts here.
    _COLUMN: type[WideColumn] = WideColumn

    def __init__(self, rows: int, cols: int, drain_group: int = 8, lanes: int = 4, paired: bool = False) -> None:
        if rows < 1 or cols < 1 or drain_group < 1:
            raise ValueError(f"rows, cols and drain_group must be positive, not {rows}, {cols}, {drain_group}")
        self.rows, self.cols, self.drain_group, self.lanes, self.paired = rows, cols, drain_group, lanes, paired
        word = lanes * LANE_BITS
        super().__init__(
            {
                "a": In(rows * word),
                "boundary": In(rows),
                "w": In(cols * word),
                "eight_bit": In(1),
                "result": Out(32 * cols),
                "overflow": Out(cols),
                "result_valid": Out(1),
            }
        )

    def result_delay(self, row: int) -> int:
        """Cycles from row 0's boundary word at ``a`` to the result of `row` in column 0."""
        return 2 + row + row // self.drain_group

    @property
    def latency(self) -> int:
        """Cycles from row 0's boundary word at ``a`` to the first result of the pass it closes."""
        return self.result_delay(0)

    @property
    def drain_cycles(self) -> int:
        """Least distance of two boundaries: the cycles a column's bus is busy with one pass."""
        return self.result_delay(self.rows - 1) - self.result_delay(0) + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        columns = [self._COLUMN(self.rows, self.drain_group, self.lanes, self.paired) for _ in range(self.cols)]
        a, w, boundary = self.a, self.w, self.boundary
        if self.paired:
            a, w = (self._packed(m, role, value) for role, value in (("a", a), ("w", w)))
        for number, column in enumerate(columns):
            m.submodules[f"column{number}"] = column
            m.d.comb += [
                column.a.eq(a),
                column.boundary.eq(boundary),
                column.w.eq(w.word_select(number, len(column.w))),
                column.eight_bit.eq(self.eight_bit),
                Cat(self.result.word_select(number, 32), self.overflow[number]).eq(column.drain),
            ]
            a, boundary = column.a_next, column.boundary_next

        # A result's validity travels beside column 0's bus, and only there: the other columns repeat it.
        valid = Const(0, 1)
        for first in reversed(range(0, self.rows, self.drain_group)):
            stage = Signal(name=f"valid{first // self.drain_group}")
            m.d.sync += stage.eq(valid | columns[0].boundary_next[first : first + self.drain_group].any())
            valid = stage
        m.d.comb += self.result_valid.eq(valid)
        return m

    def _packed(self, m: Module, role: str, words: Value) -> Value:
        packers = [PairPacker(role) for _ in range(len(words) // (4 * LANE_BITS))]
        for number, packer in enumerate(packers):
            m.submodules[f"{role}_packer{number}"] = packer
            m.d.comb += [packer.lanes.eq(words.word_select(number, len(packer.lanes))), packer.eight_bit.eq(self.eight_bit)]
        return Cat(packer.word for packer in packers)
