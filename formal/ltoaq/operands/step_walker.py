"""The walker's steps hold until taken, and the parts of K between a first and a last part add up to K."""

from amaranth import Module, Mux, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.config import TINY
from nibblecore.hdl.ltoaq.command.job import GemmJob, StepLayout
from nibblecore.hdl.ltoaq.operands.step_walker import StepWalker


class StepSpec(wiring.Component):
    """Any legal job of up to three tiles each way; with `fault`, one bit of the size of a part of K is stuck."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"start": In(1), "ready": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = StepWalker(TINY)
        job, step, last = Signal(GemmJob), Signal(StepLayout), Signal(StepLayout)
        small = {name: AnyConst(2) for name in ("m_tiles", "n_tiles", "k_tiles", "a_group", "w_group", "chunk_tiles")}
        k = AnyConst(5)
        m.d.comb += [job[name].eq(value) for name, value in small.items()]
        m.d.comb += [Assume(value != 0) for value in small.values()]
        m.d.comb += [
            job.k.eq(k),
            job.chunked.eq(small["chunk_tiles"] != small["k_tiles"]),
            Assume((k != 0) & (k <= small["k_tiles"] * TINY.tile) & (k + TINY.tile > small["k_tiles"] * TINY.tile)),
            Assume(small["chunk_tiles"] <= small["k_tiles"]),
            walker.job.eq(job),
            walker.start.eq(self.start),
            walker.o.ready.eq(self.ready),
            step.eq(walker.o.payload),
        ]
        if self.fault:
            m.d.comb += step.k[3].eq(0)
        waited, running, started, taken = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [taken.eq(walker.o.valid & self.ready), Assume(~self.start | ~running)]
        m.d.sync += [waited.eq(walker.o.valid & ~self.ready), started.eq(self.start), last.eq(step)]
        with m.If(self.start):
            m.d.sync += running.eq(1)
        with m.Elif(taken & step.last):
            m.d.sync += running.eq(0)
        m.d.comb += [
            Assert(walker.busy == running),
            Assert(walker.o.valid == (running & ~started)),
            Assert(~waited | (walker.o.valid & (step == last))),
        ]

        k_sum, tile_sum = Signal(16), Signal(16)
        with m.If(walker.o.valid):
            m.d.comb += [
                Assert(step.first_part == (tile_sum == 0)),
                Assert(step.k != 0),
                Assert(step.tiles != 0),
                Assert(~step.last_part | ((k_sum + step.k == job.k) & (tile_sum + step.tiles == job.k_tiles))),
                Assert((step.a_count != 0) & (step.a_first + step.a_count <= job.m_tiles)),
                Assert((step.w_count != 0) & (step.w_first + step.w_count <= job.n_tiles)),
                Assert(~step.last | ((step.a_first + step.a_count == job.m_tiles) & (step.w_first + step.w_count == job.n_tiles))),
                Cover(step.last & (step.w_first != 0) & (step.a_first != 0)),
                Cover(step.last & (tile_sum != 0)),
            ]
        with m.If(taken):
            m.d.sync += [
                k_sum.eq(Mux(step.last_part, 0, k_sum + step.k)),
                tile_sum.eq(Mux(step.last_part, 0, tile_sum + step.tiles)),
            ]
        return m


PROOFS = [
    Proof(
        name="ltoaq.operands.step_walker.steps",
        spec=StepSpec,
        fault=lambda: StepSpec(fault=True),
        engine="bmc",
        depth=15,
        cover_depth=40,
        reason="15 cycles pass through every arm of the loop nest; whole products are compared with the golden model in the bench",
    )
]
