"""Takes commands from the queue, has them checked and carried out, and reports how they ended."""

from amaranth import Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import LtoaqConfig

from .descriptor import DESCRIPTOR_BYTES, HEADER_BYTES, Opcode
from .descriptor_checker import DescriptorChecker, descriptor_layout
from .errors import ErrorCode
from .job import GemmJob, MatrixShape, OperandJob, OutputJob, RawJob, TensorSummary

__all__ = ["Controller"]

SETTLE_CYCLES = 8
"""Longer than any pipeline between the last tile and the statistics."""


class Controller(wiring.Component):
    """One command at a time: fetch the descriptor, check it, fetch the operands' headers, run, write the result's header.

    The units start every command from reset (`unit_reset`), so that nothing of an abandoned command is left in them. An error
    abandons the command: transfers already announced on the bus are completed, then the next command is taken.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    push, address : In
    clear_error, clear_counters, soft_reset : In
    window_base, window_last : In
    busy, queue_full, queue_level, done_count, error_code, error_sequence : Out
    error_recorded : Out
        One cycle: an error is written to `error_code`.
    command_done : Out
        A command with `interrupt` set ended.
    gemm, a, w, target, raw0, raw1, shape, q_max, descriptor : Out
        The running command.
    start_gemm, start_quantize, start_gradient, unit_reset : Out
    idle : In
        Everything started has ended.
    malformed, run_overflow : In
    summary : In
    read_command, read_data : Out and In streams
        Used while no unit runs.
    owns_bus : Out
    read_error, read_idle, write_error, write_idle : In
    abandon : Out
        To both DMAs.
    clear_bus : Out
    write_command, write_data : Out streams
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        command = stream.Signature(data.StructLayout({"address": 32, "beats": 16}))
        super().__init__(
            {
                "push": In(1),
                "address": In(32),
                "clear_error": In(1),
                "clear_counters": In(1),
                "soft_reset": In(1),
                "window_base": In(32),
                "window_last": In(32),
                "busy": Out(1),
                "queue_full": Out(1),
                "queue_level": Out(8),
                "done_count": Out(32),
                "error_code": Out(8),
                "error_sequence": Out(16),
                "error_recorded": Out(1),
                "command_done": Out(1),
                "gemm": Out(GemmJob),
                "a": Out(OperandJob),
                "w": Out(OperandJob),
                "target": Out(OutputJob),
                "raw0": Out(RawJob),
                "raw1": Out(RawJob),
                "shape": Out(MatrixShape),
                "q_max": Out(8),
                "descriptor": Out(descriptor_layout()),
                "start_gemm": Out(1),
                "start_quantize": Out(1),
                "start_gradient": Out(1),
                "unit_reset": Out(1),
                "idle": In(1),
                "malformed": In(1),
                "run_overflow": In(1),
                "summary": In(TensorSummary),
                "read_command": Out(command),
                "read_data": In(stream.Signature(config.bus_bits)),
                "owns_bus": Out(1),
                "read_error": In(1),
                "read_idle": In(1),
                "write_error": In(1),
                "write_idle": In(1),
                "abandon": Out(1),
                "clear_bus": Out(1),
                "write_command": Out(command),
                "write_data": Out(stream.Signature(data.StructLayout({"data": config.bus_bits, "strobe": config.bus_bytes}))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.checker = checker = DescriptorChecker(config)
        words = Signal(8 * DESCRIPTOR_BYTES)
        a_beats, w_beats = Signal(16), Signal(16)
        m.d.comb += [
            checker.descriptor.eq(words),
            self.descriptor.eq(words),
            checker.window_base.eq(self.window_base),
            checker.window_last.eq(self.window_last),
            self.gemm.eq(checker.gemm),
            self.a.eq(checker.a),
            self.w.eq(checker.w),
            self.target.eq(checker.target),
            self.a.run_beats.eq(a_beats),
            self.w.run_beats.eq(w_beats),
            self.raw0.eq(checker.raw0),
            self.raw1.eq(checker.raw1),
            self.shape.eq(checker.shape),
            self.q_max.eq(checker.q_max),
        ]
        fail, code = Signal(), Signal(8)
        address, pop = self._queue(m, fail, code)
        self._run(m, checker, words, (a_beats, w_beats), address, pop, fail, code)
        return m

    def _queue(self, m: Module, fail: Signal, code: Signal) -> tuple[Signal, Signal]:
        # A soft reset drops what waits, and nothing that is pushed after it.
        m.submodules.queue = queue = ResetInserter(self.soft_reset)(SyncFIFO(width=32, depth=self.config.queue_depth))
        pop, pushed, overflow = Signal(), Signal(), Signal()
        m.d.comb += [
            queue.w_data.eq(self.address),
            queue.w_en.eq(self.push),
            pushed.eq(self.push & queue.w_rdy),
            overflow.eq(self.push & ~queue.w_rdy),
            self.queue_full.eq(~queue.w_rdy),
            self.queue_level.eq(queue.level),
            queue.r_en.eq(pop),
        ]
        waiting = Signal()
        m.d.comb += waiting.eq(queue.r_rdy & ~self.soft_reset)
        self._waiting = waiting
        with m.If(self.clear_error):
            m.d.sync += [self.error_code.eq(ErrorCode.NONE), self.error_sequence.eq(0)]
        with m.If((self.error_code == ErrorCode.NONE) | self.clear_error):
            m.d.comb += self.error_recorded.eq(fail | overflow)
            with m.If(fail):
                m.d.sync += [self.error_code.eq(code), self.error_sequence.eq(self.done_count)]
            with m.Elif(overflow):
                m.d.sync += [
                    self.error_code.eq(ErrorCode.QUEUE_OVERFLOW),
                    self.error_sequence.eq(self.done_count + queue.level + self._in_command()),
                ]
        return queue.r_data, pop

    def _in_command(self) -> Signal:
        if not hasattr(self, "_running"):
            self._running = Signal(name="running")
        return self._running

    def _run(
        self,
        m: Module,
        checker: DescriptorChecker,
        words: Signal,
        run_beats: tuple[Signal, Signal],
        queued: Signal,
        pop: Signal,
        fail: Signal,
        code: Signal,
    ) -> None:
        config = self.config
        bus_bits = config.bus_bits
        here, beat, settle = Signal(32), Signal(range(DESCRIPTOR_BYTES)), Signal(range(SETTLE_CYCLES))
        descriptor = self.descriptor
        is_gemm, is_quantize, is_gradient = (Signal(name=f"runs_{n}") for n in ("gemm", "quantize", "gradient"))
        side, wanted = Signal(), Signal()
        stop = Signal()  # a soft reset abandons the command without an error
        m.d.comb += [
            is_gemm.eq(descriptor.opcode == Opcode.GEMM),
            is_quantize.eq(descriptor.opcode == Opcode.QUANTIZE),
            is_gradient.eq(descriptor.opcode == Opcode.THRESHOLD_GRAD),
        ]
        header_stride = Mux(side, descriptor.w_run_stride, descriptor.a_run_stride)
        header_bad = Signal()
        beats_read = Signal(32)
        m.d.comb += [
            beats_read.eq(self.read_data.payload[:32]),
            header_bad.eq((beats_read == 0) | (beats_read > config.max_run_beats) | (beats_read > header_stride)),
        ]
        running = self._in_command()
        trouble, trouble_code = Signal(), Signal(8)
        m.d.comb += trouble.eq(self.malformed | self.run_overflow | self.read_error | self.write_error)
        with m.If(self.read_error):
            m.d.comb += trouble_code.eq(ErrorCode.BUS_READ)
        with m.Elif(self.write_error):
            m.d.comb += trouble_code.eq(ErrorCode.BUS_WRITE)
        with m.Elif(self.malformed):
            m.d.comb += trouble_code.eq(ErrorCode.MALFORMED_RUNS)
        with m.Else():
            m.d.comb += trouble_code.eq(ErrorCode.RUN_OVERFLOW)

        summary = Signal(8 * HEADER_BYTES)
        s = self.summary
        m.d.comb += summary.eq(
            Mux(
                is_gradient,
                Cat(Const(0, 128), s.gradient),
                Cat(s.run_beats, Const(0, 16), s.x_max, s.outliers, s.saturations, Const(0, 64), s.overflow),
            )
        )

        def abandon(why: object) -> None:
            m.d.comb += [fail.eq(~stop & ~self.soft_reset), code.eq(why)]
            m.next = "ABANDON"

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.clear_bus.eq(1)
                m.d.sync += [here.eq(queued), beat.eq(0), side.eq(0), stop.eq(0), words.eq(0)]
                with m.If(self._waiting):
                    m.d.comb += pop.eq(1)
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                with m.If(here[:5].any()):
                    abandon(ErrorCode.MISALIGNED)
                with m.Elif((here < self.window_base) | (here + (DESCRIPTOR_BYTES - 1) > self.window_last)):
                    abandon(ErrorCode.OUT_OF_WINDOW)
                with m.Else():
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += [
                    self.read_command.valid.eq(1),
                    self.read_command.payload.address.eq(here),
                    self.read_command.payload.beats.eq(DESCRIPTOR_BYTES // config.bus_bytes),
                ]
                with m.If(self.read_command.ready):
                    m.next = "DESCRIPTOR"
            with m.State("DESCRIPTOR"):
                m.d.comb += self.read_data.ready.eq(1)
                with m.If(self.read_data.valid):
                    m.d.sync += [words.eq(Cat(words[bus_bits:], self.read_data.payload)), beat.eq(beat + 1)]
                    with m.If(beat == DESCRIPTOR_BYTES // config.bus_bytes - 1):
                        m.next = "CHECK"
                with m.If(self.read_error):
                    abandon(ErrorCode.BUS_READ)
            with m.State("CHECK"):
                m.d.comb += checker.start.eq(1)
                m.next = "CHECKING"
            with m.State("CHECKING"), m.If(checker.done):
                with m.If(self.read_error):
                    abandon(ErrorCode.BUS_READ)
                with m.Elif(checker.code != ErrorCode.NONE):
                    abandon(checker.code)
                with m.Elif(is_gemm):
                    m.next = "HEADER"
                with m.Else():
                    m.next = "RESET"
            with m.State("HEADER"):
                m.d.comb += [
                    self.read_command.valid.eq(1),
                    self.read_command.payload.beats.eq(1),
                    self.read_command.payload.address.eq(Mux(side, descriptor.w_header, descriptor.a_header)),
                ]
                with m.If(self.read_command.ready):
                    m.d.sync += side.eq(1)
                    with m.If(side):
                        m.d.sync += side.eq(0)
                        m.next = "RUN_BEATS"
            with m.State("RUN_BEATS"):
                m.d.comb += self.read_data.ready.eq(1)
                with m.If(self.read_data.valid):
                    m.d.sync += [run_beats[1].eq(beats_read), side.eq(1)]
                    with m.If(~side):
                        m.d.sync += run_beats[0].eq(beats_read)
                    with m.If(header_bad):
                        abandon(ErrorCode.MALFORMED_RUNS)
                    with m.Elif(side):
                        m.next = "RESET"
                with m.If(self.read_error):
                    abandon(ErrorCode.BUS_READ)
            with m.State("RESET"):
                m.d.comb += self.unit_reset.eq(1)
                m.next = "START"
            with m.State("START"):
                m.d.comb += [self.start_gemm.eq(is_gemm), self.start_quantize.eq(is_quantize), self.start_gradient.eq(is_gradient)]
                m.d.sync += settle.eq(0)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.sync += settle.eq(Mux(self.idle, settle + 1, 0))
                with m.If(trouble):
                    abandon(trouble_code)
                with m.Elif(stop):
                    m.next = "ABANDON"
                with m.Elif(self.idle & (settle == SETTLE_CYCLES - 1)):
                    m.d.sync += beat.eq(0)
                    m.d.comb += wanted.eq(is_quantize | is_gradient | ~descriptor.raw_output)
                    with m.If(wanted):
                        m.next = "SUMMARY"
                    with m.Else():
                        m.next = "FLUSH"
            with m.State("SUMMARY"):
                m.d.comb += [
                    self.write_command.valid.eq(1),
                    self.write_command.payload.address.eq(descriptor.out_header),
                    self.write_command.payload.beats.eq(HEADER_BYTES // config.bus_bytes),
                ]
                with m.If(self.write_command.ready):
                    m.next = "SUMMARY_DATA"
            with m.State("SUMMARY_DATA"):
                m.d.comb += [
                    self.write_data.valid.eq(1),
                    self.write_data.payload.strobe.eq(-1),
                    self.write_data.payload.data.eq(
                        summary.word_select(beat[:2], bus_bits) if config.bus_bytes < HEADER_BYTES else summary
                    ),
                ]
                with m.If(self.write_data.ready):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(beat == HEADER_BYTES // config.bus_bytes - 1):
                        m.next = "FLUSH"
            with m.State("FLUSH"):
                with m.If(self.write_error):
                    abandon(ErrorCode.BUS_WRITE)
                with m.Elif(self.write_idle):
                    m.next = "COMPLETE"
            with m.State("ABANDON"):
                m.d.comb += self.abandon.eq(1)
                with m.If(self.read_idle & self.write_idle):
                    m.next = "CLEAN"
            with m.State("CLEAN"):
                m.d.comb += [self.unit_reset.eq(1), self.abandon.eq(1)]
                m.next = "COMPLETE"
            with m.State("COMPLETE"):
                m.d.comb += self.command_done.eq(descriptor.interrupt)
                m.d.sync += self.done_count.eq(self.done_count + 1)
                m.next = "IDLE"
            m.d.comb += [
                running.eq(~fsm.ongoing("IDLE")),
                self.busy.eq(running | self._waiting),
                self.owns_bus.eq(~fsm.ongoing("RUN")),
            ]
        with m.If(self.soft_reset & running):
            m.d.sync += stop.eq(1)
        with m.If(self.clear_counters):
            m.d.sync += self.done_count.eq(0)
