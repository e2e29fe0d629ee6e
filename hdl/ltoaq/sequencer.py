"""Orders the tile passes of a matrix product as their operands arrive."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import LtoaqConfig
from .job import GemmJob, TileIndex, pass_layout
from .walker import StepWalker

__all__ = ["Sequencer"]


class Sequencer(wiring.Component):
    """Issues one pass for every part of every output tile and every part of K; waits for the panels a pass reads.

    Inside a step the W panels are the outer loop and the A panels the inner one; the parts of a tile come innermost, its columns
    fastest. The index of a tile goes to the output unit after the pass that completes it.

    Throughput: a pass a cycle; two passes in a row that both complete a tile are at least two cycles apart.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    job : In, start : In
        One product after each reset: the first group lies in the lower half of each buffer.
    a_loaded, w_loaded : In
        A panel has arrived in the buffer.
    command : Out stream of `pass_layout`
    tile : Out stream of `TileIndex`
    waits : Out
        A pass waits for its operands.
    busy : Out
        A pass or an index is still to come.
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        self.address_bits = (config.bank_words - 1).bit_length()
        super().__init__(
            {
                "job": In(GemmJob),
                "start": In(1),
                "a_loaded": In(1),
                "w_loaded": In(1),
                "command": Out(stream.Signature(pass_layout(self.address_bits))),
                "tile": Out(stream.Signature(TileIndex)),
                "waits": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, job = self.config, self.job
        m.submodules.walker = walker = StepWalker(config)
        step = walker.o.payload
        row_parts, col_parts = config.tile // config.rows, config.tile // config.output_cols
        half = config.bank_words // 2

        a_half, w_half = Signal(), Signal()
        a, w = Signal(8), Signal(8)
        row_part, col_part = Signal(range(max(2, row_parts))), Signal(range(max(2, col_parts)))
        a_panel, w_panel = Signal(self.address_bits), Signal(self.address_bits)  # first word of the panel within its half
        a_available, w_available = (
            Signal(range(2 * half + 1)),
            Signal(range(2 * half + 1)),
        )  # panels loaded, from the current group on

        sub_words = Signal(self.address_bits)
        words = Signal(16)
        part_row, part_col = Signal.like(row_part), Signal.like(col_part)
        ready, last_sub, last_a, last_pass = (Signal(name=n) for n in ("ready", "last_sub", "last_a", "last_pass"))
        completes = Signal()
        go = Signal()
        m.d.comb += [
            walker.job.eq(job),
            walker.start.eq(self.start),
            self.busy.eq(walker.o.valid | self.tile.valid),
            sub_words.eq((job.chunk_tiles * (config.tile // config.block)) << job.eight_bit),
            words.eq(Mux(job.eight_bit, step.k, (step.k + 3) >> 2)),
            part_row.eq(Mux(job.chunked, step.sub // col_parts, row_part)),
            part_col.eq(Mux(job.chunked, step.sub % col_parts, col_part)),
            last_sub.eq(job.chunked | ((row_part == row_parts - 1) & (col_part == col_parts - 1))),
            last_a.eq(a == step.a_count - 1),
            last_pass.eq(last_sub & last_a & (w == step.w_count - 1)),
            ready.eq(walker.o.valid & (a_available > a) & (w_available > w)),
            self.waits.eq(walker.o.valid & ~ready),
            completes.eq(step.last_part & (part_row == row_parts - 1) & (part_col == col_parts - 1)),
        ]
        m.d.comb += [
            self.command.payload.a_address.eq(a_panel + part_row * sub_words + Mux(a_half, half, 0)),
            self.command.payload.w_address.eq(w_panel + part_col * sub_words + Mux(w_half, half, 0)),
            self.command.payload.words.eq(words),
            self.command.payload.resume.eq(~step.first_part),
            self.command.payload.last.eq(step.last_part),
            self.command.payload.release_a.eq(last_pass),
            self.command.payload.release_w.eq(last_pass & step.release_w),
            self.command.valid.eq(ready & (~completes | ~self.tile.valid)),
            go.eq(self.command.valid & self.command.ready),
            walker.o.ready.eq(go & last_pass),
        ]
        with m.If(go & completes):
            m.d.sync += [
                self.tile.valid.eq(1),
                self.tile.payload.row.eq(step.a_first + a),
                self.tile.payload.col.eq(step.w_first + w),
            ]
        with m.Elif(self.tile.ready):
            m.d.sync += self.tile.valid.eq(0)
        with m.If(go):
            m.d.sync += col_part.eq(col_part + 1)
            with m.If(part_col == col_parts - 1):
                m.d.sync += [col_part.eq(0), row_part.eq(row_part + 1)]
            with m.If(last_sub):
                m.d.sync += [col_part.eq(0), row_part.eq(0), a.eq(a + 1), a_panel.eq(a_panel + row_parts * sub_words)]
                with m.If(last_a):
                    m.d.sync += [a.eq(0), a_panel.eq(0), w.eq(w + 1), w_panel.eq(w_panel + col_parts * sub_words)]
            with m.If(last_pass):
                m.d.sync += [w.eq(0), w_panel.eq(0), a_half.eq(~a_half), w_half.eq(w_half ^ step.release_w)]
        m.d.sync += [
            a_available.eq(a_available + self.a_loaded - Mux(go & last_pass, step.a_count, 0)),
            w_available.eq(w_available + self.w_loaded - Mux(go & last_pass & step.release_w, step.w_count, 0)),
        ]
        return m
