"""Holds two output tiles between the array (or the 32-bit loader) and the output units."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.memory import Memory

__all__ = ["TileBuffer", "result_layout"]


def result_layout() -> data.StructLayout:
    """One column's result: the accumulator, and whether it overflowed."""
    return data.StructLayout({"value": 32, "overflow": 1})


class TileBuffer(wiring.Component):
    """Two halves of S × S 32-bit words, one bank for each output column of the array.

    The array writes a tile as (S/R)·(S/C) passes, each column at its own pace; every column must deliver all rows of a pass in
    order, and the passes come with the column part of the tile varying fastest. Before a pass's results may flow the writer
    takes a credit. The 32-bit loader writes whole rows instead, and says when a tile is complete.

    Halves are read in the order in which they were filled; ``full`` says that the oldest one is complete, ``consumed`` frees it.

    Latency: a row is at ``read_data`` `READ_LATENCY` = 1 cycle after ``read_enable``, and holds. A half is ``full`` two cycles after its
    last result, one after ``raw_done``. Throughput: a result a column and a row of C words out a cycle.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    credit : Out(1)
        Results of one more pass fit.
    take : In(1)
        Takes the credit.
    result_valid : In(output_cols)
        A bit a column.
    result : In(output_cols * 33)
        Column 0 least significant, see `result_layout`.
    raw_enable : In(output_cols)
    raw_row : In(⌈log2 tile⌉)
    raw_part : In(part of a row)
    raw_data : In(output_cols * 32)
        Write of columns part·C .. part·C + C − 1 of a row; only the columns set in ``raw_enable``.
    raw_done : In(1)
        The half being written is complete; takes all its credits.
    raw_ready : Out(1)
        A half is free for raw writes.
    full : Out(1)
    consumed : In(1)
    full_next : Out(1)
        The other half is complete as well.
    read_enable : In(1)
    read_other : In(1)
        Reads the other half, for THRESHOLD_GRAD's two operands.
    read_row : In(⌈log2 tile⌉)
    read_part : In(part of a row)
    read_data : Out(output_cols * 32)
        Column 0 of the part least significant.
    overflow : Out(1)
        Sticky: some result carried an overflow.
    """

    READ_LATENCY = Memory.READ_LATENCY

    def __init__(self, config: LtoaqConfig) -> None:
        self.tile, self.rows, self.cols = config.tile, config.rows, config.output_cols
        self.parts = config.tile // config.output_cols
        self.passes = self.parts * (config.tile // config.rows)
        row_bits, part_bits = (self.tile - 1).bit_length(), max(1, (self.parts - 1).bit_length())
        super().__init__(
            {
                "credit": Out(1),
                "take": In(1),
                "result_valid": In(self.cols),
                "result": In(33 * self.cols),
                "raw_enable": In(self.cols),
                "raw_row": In(row_bits),
                "raw_part": In(part_bits),
                "raw_data": In(32 * self.cols),
                "raw_done": In(1),
                "raw_ready": Out(1),
                "full": Out(1),
                "full_next": Out(1),
                "consumed": In(1),
                "read_enable": In(1),
                "read_other": In(1),
                "read_row": In(row_bits),
                "read_part": In(part_bits),
                "read_data": Out(32 * self.cols),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        credits = Signal(range(2 * self.passes + 1), init=2 * self.passes)
        read_half = Signal()
        # Halves begun by each column, modulo 4: a column may be up to two halves ahead of the slowest.
        begun = [Signal(2, name=f"begun{column}") for column in range(self.cols)]
        filled = Signal(range(3))  # complete halves
        completed = Signal()
        overflows = Signal(self.cols)

        m.d.comb += [
            self.credit.eq(credits != 0),
            self.raw_ready.eq(credits >= self.passes),
            self.full.eq(filled != 0),
            self.full_next.eq(filled == 2),
        ]
        m.d.sync += credits.eq(credits - self.take - Mux(self.raw_done, self.passes, 0) + Mux(self.consumed, self.passes, 0))
        m.d.sync += filled.eq(filled + completed - self.consumed)
        with m.If(self.consumed):
            m.d.sync += read_half.eq(~read_half)
        writing = Signal(2)  # the oldest half that is not complete
        m.d.comb += completed.eq(self.raw_done | Cat(column != writing for column in begun).all())
        with m.If(completed):
            m.d.sync += writing.eq(writing + 1)

        for column in range(self.cols):
            self._column(m, column, begun[column], overflows, read_half, writing[0])

        with m.If(overflows.any()):
            m.d.sync += self.overflow.eq(1)
        return m

    def _column(self, m: Module, column: int, begun: Signal, overflows: Signal, read_half: Signal, raw_half: Value) -> None:
        """One bank, with a write counter of its own: columns finish a pass at different times."""
        bank = Memory(32, 2 * self.tile * self.parts)
        m.submodules[f"column{column}"] = bank
        # Counts (row part, column part, row in part) with the row fastest; the column part lies above it.
        count = Signal(range(self.rows * self.passes), name=f"count{column}")
        row_bits, part_bits = (self.rows - 1).bit_length(), (self.parts - 1).bit_length()
        row = Cat(count[:row_bits], count[row_bits + part_bits :])
        part = count[row_bits : row_bits + part_bits]
        value, over = self.result.word_select(column, 33)[:32], self.result.word_select(column, 33)[32]
        valid = self.result_valid[column]
        raw = self.raw_enable[column]
        read_address = Cat(self.read_row, self.read_part[:part_bits], read_half ^ self.read_other)
        m.d.comb += [
            bank.write_enable.eq(valid | raw),
            bank.write_address.eq(Mux(raw, Cat(self.raw_row, self.raw_part[:part_bits], raw_half), Cat(row, part, begun[0]))),
            bank.write_data.eq(Mux(raw, self.raw_data.word_select(column, 32), value)),
            bank.read_enable.eq(self.read_enable),
            bank.read_address.eq(read_address),
            self.read_data.word_select(column, 32).eq(bank.read_data),
        ]
        m.d.comb += overflows[column].eq(valid & over)
        with m.If(valid):
            m.d.sync += count.eq(count + 1)
            with m.If(count.all()):
                m.d.sync += begun.eq(begun + 1)
        with m.If(self.raw_done):
            m.d.sync += begun.eq(begun + 1)
