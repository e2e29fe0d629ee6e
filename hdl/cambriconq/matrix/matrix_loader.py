"""Loads tiles of weights from SB into the PE array's shadow set."""

from amaranth import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.qbc import line_read
from nibblecore.hdl.cambriconq.buffers.tag import Tag

from .matrix_job import MatrixJob, TileWalker

__all__ = ["BufferRead", "MatrixError", "MatrixLoader"]


class MatrixError(data.Struct):
    """What a unit found wrong with the operands."""

    out_of_range: 1  # a line beyond the buffer
    no_tag: 1  # a line that no vector wrote
    tag_mismatch: 1  # lines of a group whose tags differ


class BufferRead(wiring.Component):
    """One side's reads: checks the range before, the tag after.

    Latency: one cycle. Throughput: a line a cycle.

    Parameters
    ----------
    cols : int
        M.
    lines : int
        Lines of the buffer, at least 2; one from there on is out of range and not asked for.

    Members
    -------
    enable : In(1)
        Read a line.
    address : In(32)
        Which; any number.
    begins : In(1)
        The line begins a group, whose other lines must have its tag.
    port : In(line_read(cols, ⌈log2 lines⌉))
        To the buffer.
    valid : Out(1)
        The cycle after ``enable``, whether the line is in order or not.
    line : Out(4 * cols)
        With ``valid``, as ``e``; both mean nothing if ``error`` has ``out_of_range`` or ``no_tag``.
    e : Out(signed(8))
        Exponent of the line's tag.
    error : Out(MatrixError)
        With ``valid``, one cycle: at most one bit, the first of `MatrixError` that applies. 0 otherwise.
    """

    def __init__(self, cols: int, lines: int) -> None:
        self.lines = lines
        super().__init__(
            {
                "enable": In(1),
                "address": In(32),
                "begins": In(1),
                "port": In(line_read(cols, (lines - 1).bit_length())),
                "valid": Out(1),
                "line": Out(4 * cols),
                "e": Out(signed(8)),
                "error": Out(MatrixError),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        in_range = Signal()
        was_in_range = Signal()
        began = Signal()
        group = Signal(Tag)
        m.d.comb += [
            in_range.eq(self.address < self.lines),
            self.port.enable.eq(self.enable & in_range),
            self.port.address.eq(self.address),
            self.line.eq(self.port.line),
            self.e.eq(self.port.tag.e),
            self.error.out_of_range.eq(self.valid & ~was_in_range),
            self.error.no_tag.eq(self.valid & was_in_range & ~self.port.written),
            self.error.tag_mismatch.eq(
                self.valid & was_in_range & self.port.written & ~began & (self.port.tag.as_value() != group.as_value())
            ),
        ]
        m.d.sync += [self.valid.eq(self.enable), was_in_range.eq(in_range), began.eq(self.begins)]
        with m.If(self.valid & began):
            m.d.sync += group.eq(self.port.tag)
        return m


class MatrixLoader(wiring.Component):
    """Keeps the shadow set one tile ahead: a line of weights a cycle, row after row, plane after plane.

    Latency: the first line is asked for 4 cycles after ``start`` and goes to the array in the next; ``ready`` L + 5 cycles after ``start``,
    L + 3 after ``taken``, L the lines of the tile: its rows · the group's vectors · w_slot. Throughput: a line a cycle within a tile.

    Parameters
    ----------
    rows, cols : int
        N, M.
    lines : int
        Lines of SB.

    Members
    -------
    job : In(MatrixJob)
        Constant from ``start`` until the last tile is ``taken``.
    start : In(1)
        One cycle, not between one and the ``taken`` of its last tile.
    port : In(line_read(cols, ⌈log2 lines⌉))
        To SB.
    load_valid : Out(1)
    load_line : Out(4 * cols)
    load_row : Out(⌈log2 rows⌉)
    load_plane : Out(2)
        To `PeArray`.
    e_valid : Out(1)
        Beside the first line of row ``load_row``:
    e : Out(signed(8))
        exponent of that row's weights.
    ready : Out(1)
        The next tile is loaded; until ``taken``. Not after the last one.
    taken : In(1)
        With ``ready``: it is swapped in with this cycle's input.
    error : Out(MatrixError)
        Beside the line that is wrong, one cycle (`BufferRead`). The loader goes on: whoever it concerns resets it.
    """

    def __init__(self, rows: int, cols: int, lines: int) -> None:
        self.rows, self.cols, self.lines = rows, cols, lines
        super().__init__(
            {
                "job": In(MatrixJob),
                "start": In(1),
                "port": In(line_read(cols, (lines - 1).bit_length())),
                "load_valid": Out(1),
                "load_line": Out(4 * cols),
                "load_row": Out((rows - 1).bit_length()),
                "load_plane": Out(2),
                "e_valid": Out(1),
                "e": Out(signed(8)),
                "ready": Out(1),
                "taken": In(1),
                "error": Out(MatrixError),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = TileWalker(self.rows)
        m.submodules.read = read = BufferRead(self.cols, self.lines)
        wiring.connect(m, wiring.flipped(self.port), read.port)
        tile, job = walker.o.payload, self.job
        row = Signal(range(self.rows + 1))
        plane = Signal(2)
        base = Signal(32)
        planes = Signal(5)
        last_plane = Signal()
        last_row = Signal()
        m.d.comb += [
            walker.job.eq(job),
            walker.start.eq(self.start),
            planes.eq(tile.vectors * job.w_slot),
            last_plane.eq(plane == planes - 1),
            last_row.eq(row == tile.count - 1),
            read.address.eq(base + plane),
            read.begins.eq(plane == 0),
            self.load_valid.eq(read.valid),
            self.load_line.eq(read.line),
            self.e.eq(read.e),
            self.error.eq(read.error),
        ]
        m.d.sync += [self.load_row.eq(row), self.load_plane.eq(plane)]
        m.d.comb += self.e_valid.eq(read.valid & (self.load_plane == 0))
        with m.FSM():
            with m.State("WAIT"):
                m.d.sync += [row.eq(0), plane.eq(0), base.eq(tile.w)]
                with m.If(walker.o.valid):
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += read.enable.eq(1)
                m.d.sync += plane.eq(plane + 1)
                with m.If(last_plane):
                    m.d.sync += [plane.eq(0), row.eq(row + 1), base.eq(base + job.w_row)]
                    with m.If(last_row):
                        m.next = "ARRIVE"
            with m.State("ARRIVE"):
                m.next = "READY"
            with m.State("READY"):
                m.d.comb += self.ready.eq(1)
                with m.If(self.taken):
                    m.d.comb += walker.o.ready.eq(1)
                    m.next = "WAIT"
        return m
