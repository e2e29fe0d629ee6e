"""Carries out WGSTORE with the engine beside the memory."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.program.job import Shape
from nibblecore.hdl.config import DramConfig

from .dram_port import DramPort
from .ndp_engine import NdpEngine, NdpError
from .ndp_rows import OPERANDS

__all__ = ["WeightUpdater"]


class WeightUpdater(wiring.Component):
    """Updates rows × cols weights where they lie: one job of the engine if rows lie side by side, else one a row.

    Rows are updated one after the other, from the first; where a row overlaps an earlier one it finds what that has left.

    Where the engine refuses a job the update ends there: the rows before are updated, nothing else is. Gradients not yet taken, that of
    the refused job and of all after it, are not wanted any more: with an error, ``done`` tells the caller to reset their source.

    Latency: the engine is given the first job 2 cycles after ``start``; one for all rows later by as many cycles as their number has
    bits, at most 16. Throughput: a weight a cycle but for `NdpEngine.overhead` and a cycle more a job, if gradients never wait.

    Parameters
    ----------
    dram : DramConfig

    Members
    -------
    start : In(1)
        Not from one start until its ``done``.
    shape : In(Shape)
    w, m, v : In(32)
        Byte addresses of the first weight and of its moments.
    mem_row : In(32)
        Bytes from row to row, of all three.
    optimizer : In(ArrayLayout(32, 6))
        c1..c5, ε, in FP32.
    use_m, use_rsqrt : In(1)
        As in `Ndpo`. All of these stand still from ``start`` until ``done``.
    i : In(stream of 32 bits)
        Gradients, row by row, in FP32.
    done : Out(1)
        One cycle, the rows of memory closed; the cycle after ``start`` if the shape is empty.
    code : Out(4)
        With ``done``: 0, MISALIGNED, MEMORY_RANGE or BANK_CONFLICT, as the engine has it.
    dram : Out(DramPort)
        Of the engine.
    """

    def __init__(self, dram: DramConfig) -> None:
        self.config = dram
        super().__init__(
            {
                "start": In(1),
                "shape": In(Shape),
                **{name: In(32) for name in OPERANDS},
                "mem_row": In(32),
                "optimizer": In(data.ArrayLayout(32, 6)),
                "use_m": In(1),
                "use_rsqrt": In(1),
                "i": In(stream.Signature(32)),
                "done": Out(1),
                "code": Out(4),
                "dram": Out(DramPort(dram)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = NdpEngine(self.config)
        connect(m, self.i, engine.i)
        for number, name in enumerate(("c1", "c2", "c3", "c4", "c5", "epsilon")):
            m.d.comb += getattr(engine, name).eq(self.optimizer[number])
        m.d.comb += [engine.use_m.eq(self.use_m), engine.use_rsqrt.eq(self.use_rsqrt)]
        for name, member in DramPort(self.config).members.items():
            source, target = (engine, self.dram) if member.flow is Out else (self.dram, engine)
            m.d.comb += getattr(target, name).eq(getattr(source, name))

        job = Signal(engine.job.payload.shape(), reset_less=True)
        # what is left to multiply
        rows = Signal(16, reset_less=True)
        addend = Signal(32, reset_less=True)
        jobs = Signal(16, reset_less=True)  # left, with the one at work
        contiguous = Signal()
        m.d.comb += [contiguous.eq(self.mem_row == self.shape.cols << 2), engine.job.payload.eq(job)]
        m.d.sync += self.done.eq(0)
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.sync += [
                    *(job[name].eq(getattr(self, name)) for name in OPERANDS),
                    self.code.eq(ErrorCode.NONE),
                    addend.eq(self.shape.cols),
                    job.count.eq(Mux(contiguous, 0, self.shape.cols)),
                    rows.eq(Mux(contiguous, self.shape.rows, 0)),
                    jobs.eq(Mux(contiguous, 1, self.shape.rows)),
                ]
                with m.If(self.start):
                    m.d.sync += self.done.eq(self.shape.empty)
                    with m.If(~self.shape.empty):
                        m.next = "COUNT"
            with m.State("COUNT"):  # rows · cols, a bit of rows a cycle
                m.d.sync += [rows.eq(rows >> 1), addend.eq(addend << 1)]
                with m.If(rows[0]):
                    m.d.sync += job.count.eq(job.count + addend)
                with m.If(rows == 0):
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += engine.job.valid.eq(1)
                with m.If(engine.job.ready):
                    m.next = "WORK"
            with m.State("WORK"):
                with m.If(engine.error != NdpError.NONE):
                    m.d.comb += engine.clear_error.eq(1)
                    m.d.sync += self.done.eq(1)
                    with m.Switch(engine.error):
                        for error, code in _CODES.items():
                            with m.Case(error):
                                m.d.sync += self.code.eq(code)
                    m.next = "IDLE"
                with m.If(engine.done):
                    m.d.sync += [jobs.eq(jobs - 1), *(job[name].eq(job[name] + self.mem_row) for name in OPERANDS)]
                    m.next = "OFFER"
                    with m.If(jobs == 1):
                        m.d.sync += self.done.eq(1)
                        m.next = "IDLE"
        return m


_CODES = {
    NdpError.MISALIGNED: ErrorCode.MISALIGNED,
    NdpError.OUT_OF_RANGE: ErrorCode.MEMORY_RANGE,
    NdpError.BANK_CONFLICT: ErrorCode.BANK_CONFLICT,
}
