"""The loop nest of a matrix product, one step at a time."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import GemmJob, StepLayout

__all__ = ["StepWalker"]


class StepWalker(wiring.Component):
    """Walks W groups, A groups, parts of a tile (chunked K only) and parts of K, innermost last.

    The loader and the sequencer each walk the same steps, so that they agree on the order without talking. W groups are outermost: their
    panels stay resident while all of A passes by.

    Latency: the first step is valid two cycles after ``start``, the next one the cycle after the last was taken. Throughput: a step a cycle.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    job : In(GemmJob)
        Constant from ``start`` until the last step is taken.
    start : In(1)
        Not from one start until the last step has been taken.
    o : Out(stream of StepLayout)
    busy : Out(1)
        From the cycle after ``start`` until the last step has been taken.
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.tile = config.tile
        self.subs = (config.tile // config.rows) * (config.tile // config.output_cols)
        super().__init__({"job": In(GemmJob), "start": In(1), "o": Out(stream.Signature(StepLayout)), "busy": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job = self.job
        # The step to offer next: its arithmetic and what a step is used for would be too long for one cycle.
        step = Signal(StepLayout)
        a_first, w_first, tiles_done, k_done = (Signal(16, name=n) for n in ("a_first", "w_first", "tiles_done", "k_done"))
        sub = Signal(8)
        a_left, w_left, tiles_left, k_left = (Signal(16, name=n) for n in ("a_left", "w_left", "tiles_left", "k_left"))
        last_a, last_w, last_sub = (Signal(name=n) for n in ("last_a", "last_w", "last_sub"))
        m.d.comb += [
            a_left.eq(job.m_tiles - a_first),
            w_left.eq(job.n_tiles - w_first),
            tiles_left.eq(job.k_tiles - tiles_done),
            k_left.eq(job.k - k_done),
            last_a.eq(a_left <= job.a_group),
            last_w.eq(w_left <= job.w_group),
            last_sub.eq(~job.chunked | (sub == self.subs - 1)),
            step.a_first.eq(a_first),
            step.w_first.eq(w_first),
            step.a_count.eq(Mux(last_a, a_left, job.a_group)),
            step.w_count.eq(Mux(last_w, w_left, job.w_group)),
            step.first_part.eq(tiles_done == 0),
            step.last_part.eq(tiles_left <= job.chunk_tiles),
            step.tiles.eq(Mux(step.last_part, tiles_left, job.chunk_tiles)),
            step.k.eq(Mux(step.last_part, k_left, job.chunk_tiles * self.tile)),
            step.sub.eq(sub),
            step.new_w.eq(job.chunked | (a_first == 0)),
            step.release_w.eq(job.chunked | last_a),
            step.last.eq(step.last_part & last_sub & last_a & last_w),
        ]
        walking = Signal()
        m.d.comb += self.busy.eq(walking | self.o.valid)
        with m.If(walking & (~self.o.valid | self.o.ready)):
            m.d.sync += [self.o.payload.eq(step), self.o.valid.eq(1)]
            m.d.sync += [tiles_done.eq(tiles_done + job.chunk_tiles), k_done.eq(k_done + job.chunk_tiles * self.tile)]
            with m.If(step.last_part):
                m.d.sync += [tiles_done.eq(0), k_done.eq(0), sub.eq(sub + 1)]
                with m.If(last_sub):
                    m.d.sync += [sub.eq(0), a_first.eq(a_first + job.a_group)]
                    with m.If(last_a):
                        m.d.sync += [a_first.eq(0), w_first.eq(w_first + job.w_group)]
            with m.If(step.last):
                m.d.sync += [walking.eq(0), w_first.eq(0)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.start):
            m.d.sync += walking.eq(1)
        return m
