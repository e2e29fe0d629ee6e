"""Streams the inputs of a product from NBin through the PE array, pass after pass."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.qbc import line_read

from .accumulator import Step
from .matrix_job import MatrixJob, TileWalker
from .matrix_loader import BufferRead, MatrixError

__all__ = ["GroupOffsets", "MatrixSequencer", "PairCounter", "PassInfo"]

PASS_CYCLES = 4
"""A result leaves an accumulator at most every fourth cycle."""


class PassInfo(data.Struct):
    """Where the results of a pass go."""

    row: 32  # of NBout
    columns: 16  # results that count
    add: 1  # to what NBout holds
    e: signed(8)  # exponent of the inputs


class PairCounter(wiring.Component):
    """The order of nibble pairs in a pass (docs/blocks/cambriconq/matrix/accumulator.md), one a cycle; idle cycles before, up to four in all.

    Latency: none: what a cycle shows is of that cycle, from registers and the sizes beside it.
    Throughput: a pair a cycle; a pass in max(4, a_lines · w_lines · vectors) cycles, without a gap between passes.

    Members
    -------
    a_lines, w_lines : In(3)
        Lines of an input and of a weight vector, 1..4.
    vectors : In(3)
        Of the group, 1..4. These three are constant during a pass.
    enable : In(1)
        Counts: this cycle is one of the pass.
    vector, i, plane : Out(2)
        Input vector, its line, and the plane of the weights.
    a_signed, w_signed : Out(1)
        The line, the plane, holds top nibbles.
    step : Out(Step)
    valid : Out(1)
        A pair, not an idle cycle.
    begins : Out(1)
        First cycle of the pass, idle or not.
    last : Out(1)
        Last cycle of the pass.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "a_lines": In(3),
                "w_lines": In(3),
                "vectors": In(3),
                "enable": In(1),
                "vector": Out(2),
                "i": Out(2),
                "plane": Out(2),
                "a_signed": Out(1),
                "w_signed": Out(1),
                "step": Out(Step),
                "valid": Out(1),
                "begins": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fresh = Signal(init=1)
        idle = Signal()
        cycles = Signal(range(PASS_CYCLES))
        count = Signal(7)
        # of the pairs' weight i + j, counted down
        left = Signal(3)
        i_next = Signal(2)
        level = Signal(3)
        i = Signal(2)
        j = Signal(2)
        # planes of the vectors before
        vector = Signal(2)
        base = Signal(2)
        shift = Signal()
        top_i = Signal(2)
        next_level_i = Signal(2)
        last_in_vector = Signal()
        last_in_level = Signal()
        last_pair = Signal()
        m.d.comb += [
            level.eq(Mux(fresh, self.a_lines + self.w_lines - 2, left)),
            i.eq(Mux(fresh, self.a_lines - 1, i_next)),
            j.eq(level - i),
            top_i.eq(Mux(level > self.a_lines - 1, self.a_lines - 1, level)),
            next_level_i.eq(Mux(level > self.a_lines - 1, self.a_lines - 1, level - 1)),
            last_in_vector.eq((i == 0) | (j == self.w_lines - 1)),
            last_in_level.eq(last_in_vector & (vector == self.vectors - 1)),
            last_pair.eq(last_in_level & (level == 0)),
            self.vector.eq(vector),
            self.i.eq(i),
            self.plane.eq(base + j),
            self.a_signed.eq(i == self.a_lines - 1),
            self.w_signed.eq(j == self.w_lines - 1),
            self.step.first.eq(fresh),
            self.step.shift.eq(shift),
            self.step.last.eq(last_pair),
            count.eq(self.a_lines * self.w_lines * self.vectors),
            idle.eq(cycles + count < PASS_CYCLES),
            self.valid.eq(self.enable & ~idle),
            self.begins.eq(self.enable & (cycles == 0)),
            self.last.eq(~idle & last_pair),
        ]
        with m.If(self.enable):
            m.d.sync += cycles.eq(Mux(self.last, 0, cycles + (cycles != PASS_CYCLES - 1)))
            with m.If(self.last):
                m.d.sync += [fresh.eq(1), shift.eq(0), vector.eq(0), base.eq(0)]
            with m.Elif(~idle):
                m.d.sync += [fresh.eq(0), left.eq(level), i_next.eq(i - 1), shift.eq(0)]
                with m.If(last_in_vector):
                    m.d.sync += [i_next.eq(top_i), vector.eq(vector + 1), base.eq(base + self.w_lines)]
                with m.If(last_in_level):
                    m.d.sync += [left.eq(level - 1), i_next.eq(next_level_i), shift.eq(1), vector.eq(0), base.eq(0)]
        return m


class GroupOffsets(wiring.Component):
    """Lines from a row's first vector to the vectors of the next group along K: window rows, window columns, vectors.

    Groups follow each other along K, and after the last of a window the first again.

    Latency: ``ready`` v cycles after ``wanted`` rose, v + 1 after ``taken``, v the vectors of the group.
    Throughput: a vector a cycle, a group in its vectors and one cycle.

    Members
    -------
    job : In(MatrixJob)
        Constant from ``start`` until the last group is ``taken``.
    start : In(1)
        One cycle: the next group is the first. Whatever was found before is dropped.
    vectors : In(3)
        Of the group, 1 to 4, constant while ``wanted`` until ``taken``.
    wanted : In(1)
        There is a group.
    ready : Out(1)
        ``offsets`` are those of the group; until ``taken``.
    offsets : Out(4 * 32)
        In lines, modulo 2³², of vector 0 least significant; what is beyond the group's vectors means nothing.
    taken : In(1)
        With ``ready``: ``wanted`` and ``vectors`` are those of the next group from the next cycle on.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "job": In(MatrixJob),
                "start": In(1),
                "vectors": In(3),
                "wanted": In(1),
                "ready": Out(1),
                "offsets": Out(4 * 32),
                "taken": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job = self.job
        found = Signal(3)
        # the vector; its pixel; its pixel's row
        here = Signal(32)
        pixel = Signal(32)
        line = Signal(32)
        vector = Signal(16)
        column = Signal(8)
        row = Signal(8)
        last_vector = Signal()
        last_column = Signal()
        last_row = Signal()
        step = Signal()
        m.d.comb += [
            last_vector.eq(vector == job.vectors - 1),
            last_column.eq(column == job.kernel_cols - 1),
            last_row.eq(row == job.kernel_rows - 1),
            self.ready.eq(self.wanted & (found == self.vectors)),
            step.eq(self.wanted & (found != self.vectors)),
        ]
        with m.If(step):
            m.d.sync += [self.offsets.word_select(found[:2], 32).eq(here), found.eq(found + 1)]
            m.d.sync += [vector.eq(vector + 1), here.eq(here + job.a_slot)]
            with m.If(last_vector):
                next_pixel = pixel + job.a_col
                m.d.sync += [vector.eq(0), column.eq(column + 1), pixel.eq(next_pixel), here.eq(next_pixel)]
                with m.If(last_column):
                    next_line = line + job.a_row
                    m.d.sync += [column.eq(0), row.eq(row + 1), line.eq(next_line), pixel.eq(next_line), here.eq(next_line)]
                    with m.If(last_row):
                        m.d.sync += [row.eq(0), line.eq(0), pixel.eq(0), here.eq(0)]
        with m.If(self.taken):
            m.d.sync += found.eq(0)
        with m.If(self.start):
            m.d.sync += [found.eq(0), vector.eq(0), column.eq(0), row.eq(0), here.eq(0), pixel.eq(0), line.eq(0)]
        return m


class MatrixSequencer(wiring.Component):
    """For every tile of weights all rows of inputs, for every row a pass: a line from NBin each cycle.

    Passes to the same row of NBout end at least ``revisit_cycles`` after each other, so that its sums are there before others are added to
    them: two rows see to that themselves, with one row the next tile waits.

    Latency: a tile's first line is read the cycle after ``loaded``, at the earliest the cycle after the last line of the tile before, or for
    the first tile 4 + v cycles after ``start``, v the vectors of its group; up to 3 cycles later where a pass has less than four lines.
    A line goes to the array the cycle after it was read.
    Throughput: a line a cycle, no bubble between passes, nor between tiles if the next one is loaded and there are two rows or more. A pass
    takes at least four cycles.

    Parameters
    ----------
    rows, cols : int
        N, M.
    lines : int
        Lines of NBin.
    revisit_cycles : int
        At most two passes, 8; ValueError otherwise.

    Members
    -------
    job : In(MatrixJob)
        Constant from ``start`` until not ``busy``.
    start : In(1)
        One cycle, not while ``busy``.
    port : In(line_read(cols, ⌈log2 lines⌉))
        To NBin.
    loaded : In(1)
        The next tile of weights is in the shadow set. Stays until ``taken``.
    taken : Out(1)
        One cycle: it is swapped in, with the tile's first line.
    i_valid : Out(1)
    i_line : Out(4 * cols)
    i_plane : Out(2)
    i_a_signed, i_w_signed, i_swap : Out(1)
    i_step : Out(Step)
        To `PeArray`.
    e_swap : Out(1)
        First cycle of a tile, idle or not; beside what goes to the array.
    info : Out(PassInfo)
    info_valid : Out(1)
        Of the pass whose first line goes to the array.
    busy : Out(1)
        From the cycle after ``start`` until the last line has gone to the array.
    error : Out(MatrixError)
        Beside the line that is wrong, one cycle (`BufferRead`). The sequencer goes on: whoever it concerns resets it.
    """

    def __init__(self, rows: int, cols: int, lines: int, revisit_cycles: int) -> None:
        if revisit_cycles > 2 * PASS_CYCLES:
            raise ValueError(f"revisit_cycles must not exceed two passes, {2 * PASS_CYCLES}, and is {revisit_cycles}")
        self.rows, self.cols, self.lines = rows, cols, lines
        self.wait_cycles = max(1, revisit_cycles - PASS_CYCLES)
        super().__init__(
            {
                "job": In(MatrixJob),
                "start": In(1),
                "port": In(line_read(cols, (lines - 1).bit_length())),
                "loaded": In(1),
                "taken": Out(1),
                "i_valid": Out(1),
                "i_line": Out(4 * cols),
                "i_plane": Out(2),
                "i_a_signed": Out(1),
                "i_w_signed": Out(1),
                "i_swap": Out(1),
                "i_step": Out(Step),
                "e_swap": Out(1),
                "info": Out(PassInfo),
                "info_valid": Out(1),
                "busy": Out(1),
                "error": Out(MatrixError),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = TileWalker(self.rows)
        m.submodules.offsets = offsets = GroupOffsets()
        m.submodules.pairs = pairs = PairCounter()
        m.submodules.read = read = BufferRead(self.cols, self.lines)
        wiring.connect(m, wiring.flipped(self.port), read.port)
        job, coming = self.job, walker.o.payload
        tile = Signal.like(coming)
        offset = Signal(4 * 32)
        begin = Signal()
        running = Signal()
        last_row = Signal()
        done = Signal()
        waited = Signal(range(self.wait_cycles + 1), init=self.wait_cycles)
        sequencing = Signal()
        m.d.comb += [
            walker.job.eq(job),
            walker.start.eq(self.start),
            offsets.job.eq(job),
            offsets.start.eq(self.start),
            offsets.wanted.eq(walker.o.valid),
            offsets.vectors.eq(coming.vectors),
            offsets.taken.eq(begin),
            walker.o.ready.eq(begin),
            pairs.a_lines.eq(job.a_slot),
            pairs.w_lines.eq(job.w_slot),
            pairs.vectors.eq(tile.vectors),
            pairs.enable.eq(running),
            # Between tiles only when the one that runs ends now.
            done.eq(~running | (pairs.last & last_row)),
            begin.eq(
                walker.o.valid & offsets.ready & self.loaded & done & ((job.rows != 1) | (~running & (waited == self.wait_cycles)))
            ),
            self.busy.eq(sequencing | self.i_valid),
        ]
        with m.If(self.start):
            m.d.sync += sequencing.eq(1)
        with m.Elif(running & pairs.last & last_row & tile.last):
            m.d.sync += sequencing.eq(0)
        with m.If(begin):
            m.d.sync += [running.eq(1), tile.eq(coming), offset.eq(offsets.offsets)]
        with m.Elif(pairs.last & last_row):
            m.d.sync += running.eq(0)
        with m.If(running):
            m.d.sync += waited.eq(0)
        with m.Elif(waited != self.wait_cycles):
            m.d.sync += waited.eq(waited + 1)
        base, result_row = self._rows(m, begin, running & pairs.last, last_row, coming)

        # Beside the line that arrives in the next cycle.
        fresh_tile = Signal()
        begins_pass = Signal()
        info = Signal(PassInfo)
        with m.If(begin):
            m.d.sync += fresh_tile.eq(1)
        with m.Elif(running & pairs.valid):
            m.d.sync += fresh_tile.eq(0)
        m.d.comb += [
            read.enable.eq(pairs.valid),
            read.address.eq(base + offset.word_select(pairs.vector, 32) + pairs.i),
            read.begins.eq(pairs.step.first),
            self.info.eq(info),
            self.info.e.eq(read.e),
            self.i_valid.eq(read.valid),
            self.i_line.eq(read.line),
            self.error.eq(read.error),
            self.taken.eq(self.i_valid & self.i_swap),
        ]
        m.d.sync += [
            Cat(self.i_plane, self.i_a_signed, self.i_w_signed).eq(Cat(pairs.plane, pairs.a_signed, pairs.w_signed)),
            self.i_step.eq(pairs.step),
            self.i_swap.eq(fresh_tile),
            begins_pass.eq(pairs.step.first),
            info.row.eq(result_row),
            info.columns.eq(tile.count),
            info.add.eq(~tile.first | job.accumulate),
        ]
        m.d.comb += self.info_valid.eq(self.i_valid & begins_pass)
        begun = Signal()
        m.d.sync += [begun.eq(begin), self.e_swap.eq(begun)]
        return m

    def _rows(self, m: Module, begin: Signal, next_row: Signal, last_row: Signal, coming: data.View) -> tuple[Signal, Signal]:
        """Walks the windows: line of the window's corner, and row of NBout for its results."""
        job = self.job
        rows_left = Signal(16)
        column = Signal(16)
        corner = Signal(32)
        line = Signal(32)
        result_row = Signal(32)
        down = Signal(32)
        across = Signal(32)
        # Constant during a job: registers keep the multiplications out of the loop.
        m.d.sync += [down.eq(job.stride * job.a_row), across.eq(job.stride * job.a_col)]
        m.d.comb += last_row.eq(rows_left == 1)
        with m.If(next_row):
            m.d.sync += [
                rows_left.eq(rows_left - 1),
                column.eq(column + 1),
                corner.eq(corner + across),
                result_row.eq(result_row + job.dest_row),
            ]
            with m.If(column == job.out_width - 1):
                m.d.sync += [column.eq(0), line.eq(line + down), corner.eq(line + down)]
        with m.If(begin):
            m.d.sync += [rows_left.eq(job.rows), column.eq(0), corner.eq(job.a), line.eq(job.a), result_row.eq(coming.dest)]
        return corner, result_row
