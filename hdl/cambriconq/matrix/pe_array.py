"""The PE array of Cambricon-Q: one line of inputs a cycle against the stored weights of every row."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .accumulator import Step
from .pe import PLANES, Pe, product_offset

__all__ = ["PeArray", "PeRow", "sum_bits"]

_FAN_IN = 4
"""Addends a stage of the adder tree takes."""


def sum_bits(cols: int) -> int:
    """Bits of the signed sum of a row: 15 for 64 columns.

    The sums of unsigned nibbles and those with a signed operand each fit one bit less, the 14 bits of the paper.
    """
    return 9 + (cols - 1).bit_length()


def _tree_stages(cols: int) -> int:
    return -(-(cols - 1).bit_length() // 2)


@emit_once
class PeRow(wiring.Component):
    """M PEs and their adder tree, registered after the products and after every fourfold addition.

    Latency: `latency` = 1 + ⌈log4 M⌉ cycles from ``a`` to ``sum``; ``offset_signed`` goes with the data but enters `latency` − 1 cycles
    later, in the last stage. Throughput: a sum a cycle. See `PeArray` for the meaning, `Pe` for the timing of ``load`` and ``swap``.

    Parameters
    ----------
    cols : int
        M, at least 2.

    Members
    -------
    line : In(4 * cols)
        Weights to load, column 0 least significant; likewise ``a``.
    load : In(4)
        Planes of the shadow set that take them, a bit a plane.
    swap : In(1)
    a : In(4 * cols)
        The inputs.
    select : In(4)
        One-hot plane.
    a_signed, w_signed : In(1)
        Whether their nibbles are two's complement.
    offset_signed : In(2)
        ``a_signed`` (bit 0) and ``w_signed`` of the sum that leaves in the next cycle.
    sum : Out(signed(sum_bits(cols)))
    """

    _PE: type[Pe] = Pe

    def __init__(self, cols: int) -> None:
        self.cols = cols
        super().__init__(
            {
                "line": In(4 * cols),
                "load": In(PLANES),
                "swap": In(1),
                "a": In(4 * cols),
                "select": In(PLANES),
                "a_signed": In(1),
                "w_signed": In(1),
                "offset_signed": In(2),
                "sum": Out(signed(sum_bits(cols))),
            }
        )

    @property
    def module_name(self) -> str:
        return f"pe_row_{self.cols}"

    @property
    def latency(self) -> int:
        return 1 + _tree_stages(self.cols)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pes = [self._PE() for _ in range(self.cols)]
        for column, pe in enumerate(pes):
            m.submodules[f"pe{column}"] = pe
            m.d.comb += [
                pe.line.eq(self.line.word_select(column, 4)),
                pe.load.eq(self.load),
                pe.swap.eq(self.swap),
                pe.a.eq(self.a.word_select(column, 4)),
                pe.select.eq(self.select),
                pe.a_signed.eq(self.a_signed),
                pe.w_signed.eq(self.w_signed),
            ]
        # The products' offsets leave with the last addition.
        offset = Signal(range(self.cols * product_offset(True, False) + 1))
        with m.Switch(self.offset_signed):
            for number in range(4):
                with m.Case(number):
                    m.d.comb += offset.eq(self.cols * product_offset(bool(number & 1), bool(number & 2)))
        partial_sums: list[Signal] = [pe.product for pe in pes]
        for stage in range(_tree_stages(self.cols)):
            groups = [partial_sums[first : first + _FAN_IN] for first in range(0, len(partial_sums), _FAN_IN)]
            partial_sums = []
            for number, group in enumerate(groups):
                final = len(groups) == 1
                shape = self.sum.shape() if final else len(group[0]) + (len(group) - 1).bit_length()
                partial_sum = Signal(shape, name=f"stage{stage}_sum{number}", reset_less=True)
                m.d.sync += partial_sum.eq(sum(group[1:], group[0]) - (offset if final else 0))
                partial_sums.append(partial_sum)
        m.d.comb += self.sum.eq(partial_sums[0])
        return m


class PeArray(wiring.Component):
    """N × M products of nibbles a cycle: the dot product of a line of inputs with a stored line of weights, for every row.

    Each row holds four lines of M weight nibbles, its planes, in two sets. A cycle with ``i_valid`` brings a line of M input nibbles to all
    rows and says which plane it meets: ``o_sum`` of row n is Σ_m a[m]·w[n, plane, m], exact. Nibbles of an operand are two's
    complement if the operand's sign flag is set, which a controller does for the top nibbles. ``i_step`` comes out beside the sums.

    One set computes while the other, the shadow, loads: a cycle with ``load_valid`` writes one line of one row and plane. An input with
    ``i_swap`` is the first to meet what was loaded in the cycles before its own; a line loaded in its own cycle or later belongs to the next
    set. A swap copies: planes that are not loaded anew stay as they are. ``i_swap`` without ``i_valid`` counts for nothing.

    Latency: `latency` = 3 + ⌈log4 M⌉ cycles, 6 for 64 columns. Throughput: a line every cycle, through swaps too; there is no back-pressure.
    A reset drops the sums under way. It does not touch stored weights, but a load or swap just before it may or may not have taken place:
    load and swap anew.

    Parameters
    ----------
    rows, cols : int
        N, at least 1, and M, at least 2; ValueError otherwise.

    Members
    -------
    i_valid : In(1)
        There is a line of inputs.
    i_line : In(4 * cols)
        Input nibbles, column 0 least significant.
    i_plane : In(2)
        Plane of the weights that it meets.
    i_a_signed, i_w_signed : In(1)
        The line, the plane, holds top nibbles, in two's complement.
    i_swap : In(1)
    i_step : In(Step)
    load_valid : In(1)
        There is a line of weights.
    load_line : In(4 * cols)
    load_row : In(⌈log2 rows⌉)
        A row that does not exist takes nothing.
    load_plane : In(2)
    o_valid : Out(1)
        There are sums in this cycle.
    o_sum : Out(rows * sum_bits(cols))
        Signed sums, row 0 least significant.
    o_step : Out(Step)
        ``i_step`` of the line that they are of.
    """

    # The proof puts simpler parts here.
    _ROW: type[PeRow] = PeRow

    def __init__(self, rows: int, cols: int) -> None:
        if rows < 1 or cols < 2:
            raise ValueError(f"rows must be at least 1 and cols at least 2, not {rows} and {cols}")
        self.rows, self.cols = rows, cols
        super().__init__(
            {
                "i_valid": In(1),
                "i_line": In(4 * cols),
                "i_plane": In(range(PLANES)),
                "i_a_signed": In(1),
                "i_w_signed": In(1),
                "i_swap": In(1),
                "i_step": In(Step),
                "load_valid": In(1),
                "load_line": In(4 * cols),
                "load_row": In(max(1, (rows - 1).bit_length())),
                "load_plane": In(range(PLANES)),
                "o_valid": Out(1),
                "o_sum": Out(rows * sum_bits(cols)),
                "o_step": Out(Step),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a line of inputs to its sums."""
        return 3 + _tree_stages(self.cols)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Stage 0: the edge. A swap acts on the PEs in the cycle after it, the data two cycles after it.
        line0 = Signal(4 * self.cols, reset_less=True)
        load_line = Signal(4 * self.cols, reset_less=True)
        select0 = Signal(PLANES, reset_less=True)
        signed0 = Signal(2, reset_less=True)
        swap = Signal()
        load_row = Signal(self.rows)
        load_plane = Signal(PLANES, reset_less=True)
        m.d.sync += [
            line0.eq(self.i_line),
            select0.eq(1 << self.i_plane),
            signed0.eq(Cat(self.i_a_signed, self.i_w_signed)),
            swap.eq(self.i_valid & self.i_swap),
            load_line.eq(self.load_line),
            load_row.eq(Mux(self.load_valid, 1 << self.load_row, 0)),
            load_plane.eq(1 << self.load_plane),
        ]

        # Stage 1: the broadcast.
        line1 = Signal(4 * self.cols, reset_less=True)
        select1 = Signal(PLANES, reset_less=True)
        m.d.sync += [line1.eq(line0), select1.eq(select0)]

        # What travels beside the data, once for all rows.
        valid = Signal(self.latency)
        signs = [signed0]
        steps = [Signal(Step, name="step0", reset_less=True)]
        m.d.sync += [valid.eq(Cat(self.i_valid, valid)), steps[0].eq(self.i_step)]
        for stage in range(1, self.latency):
            steps.append(Signal(Step, name=f"step{stage}", reset_less=True))
            m.d.sync += steps[stage].eq(steps[stage - 1])
        for stage in range(1, self.latency - 1):
            signs.append(Signal(2, name=f"signed{stage}", reset_less=True))
            m.d.sync += signs[stage].eq(signs[stage - 1])

        for number in range(self.rows):
            m.submodules[f"row{number}"] = row = self._ROW(self.cols)
            m.d.comb += [
                row.line.eq(load_line),
                row.load.eq(load_plane & load_row[number].replicate(PLANES)),
                row.swap.eq(swap),
                row.a.eq(line1),
                row.select.eq(select1),
                Cat(row.a_signed, row.w_signed).eq(signs[1]),
                row.offset_signed.eq(signs[-1]),
                self.o_sum.word_select(number, len(row.sum)).eq(row.sum),
            ]
        m.d.comb += [self.o_valid.eq(valid[-1]), self.o_step.eq(steps[-1])]
        return m
