"""What the controller hands to the matrix unit, and the tiles into which it is cut."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["MatrixJob", "Tile", "TileWalker"]


class MatrixJob(data.Struct):
    """MM and CONV, see docs/cambriconq-isa.md; `dest` and `dest_row` count rows of NBout.

    MM is a CONV of 1 × 1 windows in an image one pixel wide: ``a_col`` 0, ``stride``, ``out_width``, ``kernel_rows`` and
    ``kernel_cols`` 1.
    """

    accumulate: 1
    group: 3
    rows: 16
    cols: 16
    dest: 32
    dest_row: 32
    a: 32
    a_row: 32
    a_col: 32
    a_slot: 3
    w: 32
    w_row: 32
    w_slot: 3
    vectors: 16
    out_width: 16
    stride: 8
    kernel_rows: 8
    kernel_cols: 8


class Tile(data.Struct):
    """Weights that the array holds at a time: up to N rows of a group of vectors along K."""

    count: 16  # rows of weights
    vectors: 3  # of the group
    first: 1  # group along K
    last: 1  # tile of all
    w: 32  # line of the first row's first vector
    dest: 32  # row of NBout of the first result


class TileWalker(wiring.Component):
    """Cuts a product into tiles: groups along K innermost, then the next N rows of weights.

    Latency: the first tile shows three cycles after ``start``, the next one the cycle after one was taken. Throughput: a tile a cycle.

    Parameters
    ----------
    rows : int
        N.

    Members
    -------
    job : In(MatrixJob)
        Constant from ``start`` until the last tile is taken.
    start : In(1)
        One cycle, not between one and the taking of its last tile.
    o : Out(stream of Tile)
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__({"job": In(MatrixJob), "start": In(1), "o": Out(stream.Signature(Tile))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job, tile = self.job, self.o.payload
        # pixels of a window, vectors along K
        window = Signal(16)
        depth = Signal(32)
        cols_left = Signal(16)
        k_left = Signal(32)
        w_first = Signal(32)
        w = Signal(32)
        dest = Signal(32)
        first = Signal()
        group_lines = Signal(5)
        last_group = Signal()
        last_cols = Signal()
        m.d.comb += [
            last_group.eq(k_left <= job.group),
            last_cols.eq(cols_left <= self.rows),
            group_lines.eq(job.group * job.w_slot),
            tile.count.eq(Mux(last_cols, cols_left, self.rows)),
            tile.vectors.eq(Mux(last_group, k_left, job.group)),
            tile.last.eq(last_group & last_cols),
            tile.first.eq(first),
            tile.w.eq(w),
            tile.dest.eq(dest),
        ]
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += window.eq(job.kernel_rows * job.kernel_cols)
                m.next = "DEPTH"
            with m.State("DEPTH"):
                m.d.sync += depth.eq(window * job.vectors)
                m.next = "FIRST"
            with m.State("FIRST"):
                m.d.sync += [
                    cols_left.eq(job.cols),
                    k_left.eq(depth),
                    w_first.eq(job.w),
                    w.eq(job.w),
                    dest.eq(job.dest),
                    first.eq(1),
                ]
                m.next = "TILES"
            with m.State("TILES"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [w.eq(w + group_lines), first.eq(0), k_left.eq(k_left - job.group)]
                    with m.If(last_group):
                        m.d.sync += [
                            w_first.eq(w_first + self.rows * job.w_row),
                            w.eq(w_first + self.rows * job.w_row),
                            first.eq(1),
                            k_left.eq(depth),
                            cols_left.eq(cols_left - self.rows),
                            dest.eq(dest + 4),
                        ]
                    with m.If(tile.last):
                        m.next = "IDLE"
        return m
