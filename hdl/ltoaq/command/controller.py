"""Takes commands from the queue, has them checked and carried out, and reports how they ended."""

from amaranth import Cat, Const, Module, Mux, ResetInserter, Signal, Value
from amaranth.hdl import ValueLike
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout, write_layout
from nibblecore.hdl.config import LtoaqConfig

from .descriptor import DESCRIPTOR_BYTES, HEADER_BYTES, Opcode
from .descriptor_checker import DescriptorChecker, descriptor_layout
from .errors import ErrorCode
from .job import GemmJob, MatrixShape, OperandJob, OutputJob, RawJob, TensorSummary

__all__ = ["Controller"]


class _Progress:
    """How far the running command has come; what the states share."""

    def __init__(self, config: LtoaqConfig, settle_cycles: int) -> None:
        self.waiting = Signal()  # the queue holds a command
        self.running = Signal()
        self.dropped = Signal()  # the command is abandoned, by an error or by a soft reset
        self.ended = Signal()  # its last cycle
        # the command is abandoned in this cycle, and why
        self.fail = Signal()
        self.code = Signal(8)
        self.here = Signal(32)  # address of the descriptor
        self.window_base = Signal(32)
        self.window_last = Signal(32)
        self.words = Signal(8 * DESCRIPTOR_BYTES)
        self.beat = Signal(range(max(DESCRIPTOR_BYTES, HEADER_BYTES) // config.bus_bytes))
        self.side = Signal()  # the operand whose header is next: 0 A, 1 W
        self.a_run_beats = Signal(16)
        self.w_run_beats = Signal(16)
        self.settled = Signal(range(settle_cycles), reset_less=True)  # cycles for which the units have been idle


class Controller(wiring.Component):
    """One command at a time: fetch the descriptor, check it, fetch the operands' headers, run, write the result's header.

    The units start every command from reset (``unit_reset``), so that nothing of an abandoned command is left in them. An error
    abandons the command: transfers already announced on the bus are completed, then the next command is taken. Of several errors in one cycle
    BUS_READ counts before BUS_WRITE, MALFORMED_RUNS and RUN_OVERFLOW, and the running command's before QUEUE_OVERFLOW.

    Of every command that joins the queue exactly one of two counters tells the end: ``done_count`` if its result is in memory,
    ``abandoned_count`` if an error or a soft reset has abandoned it, running or waiting. Their sum at its end is its number.

    Latency: where nothing is at work, ``start`` comes 25 + L + D cycles after ``push``, of a GEMM 27 + 2·L + D: D = 128/bus_bytes the beats
    of a descriptor, L ≥ 2 the cycles from the taking of a read command to its first beat. A command counts as done ``settle_cycles`` + 2
    cycles after ``idle`` has come for good, with a header 1 + 32/bus_bytes more, and as long as memory takes to answer.
    Throughput: a command at a time.

    Parameters
    ----------
    config : LtoaqConfig
    settle_cycles : int
        Cycles of ``idle`` after which ``summary`` is final, at least 1; ValueError otherwise.

    Members
    -------
    push : In(1)
    address : In(32)
        A descriptor joins the queue, or finds it full: QUEUE_OVERFLOW.
    clear_error, clear_counters, soft_reset : In(1)
        One cycle each. ``soft_reset`` abandons, without an error, all that was pushed until then, this cycle included. An error in the cycle
        of ``clear_error`` is recorded, an end in the cycle of ``clear_counters`` is not counted.
    window_base, window_last : In(32)
        First and last byte that commands may touch; a command keeps to what they are when it is taken from the queue.
    busy, queue_full : Out(1)
    queue_level : Out(8)
    done_count, abandoned_count : Out(32)
        Commands that have ended since the counters were cleared, well and otherwise.
    error_code : Out(8)
    error_sequence : Out(16)
        The first error since they were cleared, and the number of its command: how many had ended before it, or, of a push into a full
        queue, would have.
    failed : Out(1)
        One cycle: an error was met, whether or not ``error_code`` has room for it.
    command_done : Out(1)
        One cycle: a command with ``interrupt`` set was done.
    descriptor : Out(descriptor_layout())
    gemm : Out(GemmJob)
    a, w : Out(OperandJob)
    target : Out(OutputJob)
    raw0, raw1 : Out(RawJob)
    shape : Out(MatrixShape)
    q_max : Out(8)
        The running command, constant from ``start`` until it ends.
    unit_reset, start : Out(1)
        One cycle each, one after the other. ``unit_reset`` comes after an abandoned command, too.
    idle : In(1)
        Everything started has ended.
    malformed, run_overflow : In(1)
        The command is to be abandoned.
    summary : In(TensorSummary)
    owns_bus : Out(1)
        The DMAs are the controller's; while it is 0, they are the units'.
    read_command : Out(stream of `command_layout`)
    read_data : In(stream of bus_bits)
    write_command : Out(stream of `command_layout`)
    write_data : Out(stream of `write_layout`)
        To and from the DMAs.
    read_error, read_idle, write_error, write_idle : In(1)
        Of the DMAs: an error is there by the time its beat is offered, or its write answered.
    abandon, clear_bus : Out(1)
        To both DMAs: finish what is announced and drop the rest; forget the error.
    """

    checker: type[DescriptorChecker] = DescriptorChecker

    def __init__(self, config: LtoaqConfig, settle_cycles: int) -> None:
        if settle_cycles < 1:
            raise ValueError(f"settle_cycles must be at least 1, not {settle_cycles}")
        self.config, self.settle_cycles = config, settle_cycles
        command = stream.Signature(command_layout())
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
                "abandoned_count": Out(32),
                "error_code": Out(8),
                "error_sequence": Out(16),
                "failed": Out(1),
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
                "unit_reset": Out(1),
                "start": Out(1),
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
                "write_data": Out(stream.Signature(write_layout(config.bus_bytes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = _Progress(self.config, self.settle_cycles)
        m.submodules.checker = checker = self.checker(self.config)
        queue = self._queue(m, p)
        m.d.comb += [
            checker.descriptor.eq(p.words),
            checker.window_base.eq(p.window_base),
            checker.window_last.eq(p.window_last),
            self.descriptor.eq(p.words),
            self.gemm.eq(checker.gemm),
            self.a.eq(checker.a),
            self.w.eq(checker.w),
            self.a.run_beats.eq(p.a_run_beats),
            self.w.run_beats.eq(p.w_run_beats),
            self.target.eq(checker.target),
            self.raw0.eq(checker.raw0),
            self.raw1.eq(checker.raw1),
            self.shape.eq(checker.shape),
            self.q_max.eq(checker.q_max),
        ]
        with m.FSM() as fsm:
            self._take_command(m, p, queue)
            self._fetch_descriptor(m, p)
            self._check_descriptor(m, p, checker)
            self._fetch_headers(m, p)
            self._run(m, p)
            self._write_summary(m, p)
            self._end(m, p)
            m.d.comb += [
                p.running.eq(~fsm.ongoing("IDLE")),
                self.busy.eq(p.running | p.waiting),
                self.owns_bus.eq(~fsm.ongoing("RUN")),
            ]
        with m.If(p.running & (self.soft_reset | p.fail)):
            m.d.sync += p.dropped.eq(1)
        ended = self._count(m, p, queue)
        self._record_error(m, p, ended, overflow=self.push & ~queue.w_rdy)
        return m

    def _queue(self, m: Module, p: _Progress) -> SyncFIFO:
        # A soft reset drops what waits, and nothing that is pushed after it.
        m.submodules.queue = queue = ResetInserter(self.soft_reset)(SyncFIFO(width=32, depth=self.config.queue_depth))
        m.d.comb += [
            queue.w_data.eq(self.address),
            queue.w_en.eq(self.push),
            self.queue_full.eq(~queue.w_rdy),
            self.queue_level.eq(queue.level),
            p.waiting.eq(queue.r_rdy & ~self.soft_reset),
        ]
        return queue

    def _count(self, m: Module, p: _Progress, queue: SyncFIFO) -> Signal:
        """Every command that joins the queue counts once; returns how many have, 16 bits of it."""
        completed = Signal()
        waiting = Signal(range(self.config.queue_depth + 1))  # what a soft reset drops
        ended = Signal(16)
        m.d.comb += [
            completed.eq(p.ended & ~p.dropped & ~self.soft_reset),
            waiting.eq(queue.level + (self.push & queue.w_rdy)),
            ended.eq(self.done_count + self.abandoned_count),
            self.command_done.eq(completed & self.descriptor.interrupt),
        ]
        m.d.sync += [
            self.done_count.eq(self.done_count + completed),
            self.abandoned_count.eq(self.abandoned_count + (p.ended & ~completed) + Mux(self.soft_reset, waiting, 0)),
        ]
        with m.If(self.clear_counters):
            m.d.sync += [self.done_count.eq(0), self.abandoned_count.eq(0)]
        return ended

    def _record_error(self, m: Module, p: _Progress, ended: Signal, overflow: Value) -> None:
        """The first error stays until it is cleared, with the number of its command."""
        m.d.comb += self.failed.eq(p.fail | overflow)
        with m.If(self.clear_error):
            m.d.sync += [self.error_code.eq(ErrorCode.NONE), self.error_sequence.eq(0)]
        with m.If((self.error_code == ErrorCode.NONE) | self.clear_error):
            with m.If(p.fail):
                m.d.sync += [self.error_code.eq(p.code), self.error_sequence.eq(ended)]
            with m.Elif(overflow):
                m.d.sync += [
                    self.error_code.eq(ErrorCode.QUEUE_OVERFLOW),
                    self.error_sequence.eq(ended + self.queue_level + p.running),
                ]

    def _abandon(self, m: Module, p: _Progress, why: ValueLike) -> None:
        """Leave the state: the command ends with error `why`."""
        m.d.comb += [p.fail.eq(~p.dropped & ~self.soft_reset), p.code.eq(why)]
        m.next = "ABANDON"

    def _read(self, m: Module, address: ValueLike, beats: int) -> None:
        """Offer the read DMA a command."""
        command = self.read_command
        m.d.comb += [command.valid.eq(1), command.payload.address.eq(address), command.payload.beats.eq(beats)]

    def _take_command(self, m: Module, p: _Progress, queue: SyncFIFO) -> None:
        with m.State("IDLE"):
            m.d.comb += self.clear_bus.eq(1)
            m.d.sync += [p.here.eq(queue.r_data), p.beat.eq(0), p.side.eq(0), p.dropped.eq(0)]
            m.d.sync += [p.window_base.eq(self.window_base), p.window_last.eq(self.window_last)]
            with m.If(p.waiting):
                m.d.comb += queue.r_en.eq(1)
                m.next = "ADDRESS"
        with m.State("ADDRESS"):
            with m.If(p.here[:5].any()):
                self._abandon(m, p, ErrorCode.MISALIGNED)
            with m.Elif((p.here < p.window_base) | (p.here + (DESCRIPTOR_BYTES - 1) > p.window_last)):
                self._abandon(m, p, ErrorCode.OUT_OF_WINDOW)
            with m.Else():
                m.next = "FETCH"

    def _fetch_descriptor(self, m: Module, p: _Progress) -> None:
        bus_bits, beats = self.config.bus_bits, DESCRIPTOR_BYTES // self.config.bus_bytes
        with m.State("FETCH"):
            self._read(m, p.here, beats)
            with m.If(self.read_command.ready):
                m.next = "DESCRIPTOR"
        with m.State("DESCRIPTOR"):
            m.d.comb += self.read_data.ready.eq(1)
            with m.If(self.read_data.valid):
                m.d.sync += [p.words.eq(Cat(p.words[bus_bits:], self.read_data.payload)), p.beat.eq(p.beat + 1)]
                with m.If(p.beat == beats - 1):
                    m.next = "CHECK"
            with m.If(self.read_error):
                self._abandon(m, p, ErrorCode.BUS_READ)

    def _check_descriptor(self, m: Module, p: _Progress, checker: DescriptorChecker) -> None:
        with m.State("CHECK"):
            m.d.comb += checker.start.eq(1)
            m.next = "CHECKING"
        with m.State("CHECKING"), m.If(checker.done):
            with m.If(checker.code != ErrorCode.NONE):
                self._abandon(m, p, checker.code)
            with m.Elif(self.descriptor.opcode == Opcode.GEMM):
                m.next = "HEADER"
            with m.Else():
                m.next = "RESET"

    def _fetch_headers(self, m: Module, p: _Progress) -> None:
        """Of both operands of a product: the beats of their longest segments, which must lie within the stride."""
        d = self.descriptor
        run_beats = Signal(32)
        stride = Signal(32)
        wrong = Signal()
        m.d.comb += [
            run_beats.eq(self.read_data.payload[:32]),
            stride.eq(Mux(p.side, d.w_run_stride, d.a_run_stride)),
            wrong.eq((run_beats == 0) | (run_beats > self.config.max_run_beats) | (run_beats > stride)),
        ]
        with m.State("HEADER"):
            self._read(m, Mux(p.side, d.w_header, d.a_header), 1)
            with m.If(self.read_command.ready):
                m.d.sync += p.side.eq(1)
                with m.If(p.side):
                    m.d.sync += p.side.eq(0)
                    m.next = "RUN_BEATS"
        with m.State("RUN_BEATS"):
            m.d.comb += self.read_data.ready.eq(1)
            with m.If(self.read_data.valid):
                m.d.sync += [p.w_run_beats.eq(run_beats), p.side.eq(1)]
                with m.If(~p.side):
                    m.d.sync += p.a_run_beats.eq(run_beats)
                with m.If(wrong):
                    self._abandon(m, p, ErrorCode.MALFORMED_RUNS)
                with m.Elif(p.side):
                    m.next = "RESET"
            with m.If(self.read_error):
                self._abandon(m, p, ErrorCode.BUS_READ)

    def _run(self, m: Module, p: _Progress) -> None:
        with m.State("RESET"):
            m.d.comb += self.unit_reset.eq(1)
            m.next = "START"
        with m.State("START"):
            m.d.comb += self.start.eq(1)
            m.d.sync += p.settled.eq(0)
            m.next = "RUN"
        with m.State("RUN"):
            m.d.sync += [p.settled.eq(Mux(self.idle, p.settled + 1, 0)), p.beat.eq(0)]
            with m.If(self.read_error):
                self._abandon(m, p, ErrorCode.BUS_READ)
            with m.Elif(self.write_error):
                self._abandon(m, p, ErrorCode.BUS_WRITE)
            with m.Elif(self.malformed):
                self._abandon(m, p, ErrorCode.MALFORMED_RUNS)
            with m.Elif(self.run_overflow):
                self._abandon(m, p, ErrorCode.RUN_OVERFLOW)
            with m.Elif(p.dropped):
                m.next = "ABANDON"
            with m.Elif(self.idle & (p.settled == self.settle_cycles - 1)):
                with m.If((self.descriptor.opcode == Opcode.GEMM) & self.descriptor.raw_output):
                    m.next = "FLUSH"
                with m.Else():
                    m.next = "SUMMARY"

    def _write_summary(self, m: Module, p: _Progress) -> None:
        """The result's header, then wait until everything is in memory."""
        command, beat, s = self.write_command, self.write_data, self.summary
        beats = HEADER_BYTES // self.config.bus_bytes
        header = Signal(8 * HEADER_BYTES)
        of_tensor = Cat(s.run_beats, Const(0, 16), s.x_max, s.outliers, s.saturations, Const(0, 64), s.overflow)
        m.d.comb += header.eq(Mux(self.descriptor.opcode == Opcode.THRESHOLD_GRAD, Cat(Const(0, 128), s.gradient), of_tensor))
        with m.State("SUMMARY"):
            m.d.comb += [
                command.valid.eq(1),
                command.payload.address.eq(self.descriptor.out_header),
                command.payload.beats.eq(beats),
            ]
            with m.If(command.ready):
                m.next = "SUMMARY_DATA"
        with m.State("SUMMARY_DATA"):
            m.d.comb += [
                beat.valid.eq(1),
                beat.payload.strobe.eq(-1),
                beat.payload.data.eq(header.word_select(p.beat[: (beats - 1).bit_length()], self.config.bus_bits)),
            ]
            with m.If(beat.ready):
                m.d.sync += p.beat.eq(p.beat + 1)
                with m.If(p.beat == beats - 1):
                    m.next = "FLUSH"
        with m.State("FLUSH"):
            with m.If(self.write_error):
                self._abandon(m, p, ErrorCode.BUS_WRITE)
            with m.Elif(self.write_idle):
                m.next = "COMPLETE"

    def _end(self, m: Module, p: _Progress) -> None:
        with m.State("ABANDON"):
            m.d.comb += self.abandon.eq(1)
            with m.If(self.read_idle & self.write_idle):
                m.next = "CLEAN"
        with m.State("CLEAN"):
            m.d.comb += [self.unit_reset.eq(1), self.abandon.eq(1)]
            m.next = "COMPLETE"
        with m.State("COMPLETE"):
            m.d.comb += p.ended.eq(1)
            m.next = "IDLE"
