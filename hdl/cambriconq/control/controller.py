"""Checks a program's instructions one by one, and has the lanes carry them out as soon as order allows."""

from enum import IntEnum

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout, connect
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.program.fetcher import Fetcher
from nibblecore.hdl.cambriconq.program.instruction_checker import InstructionChecker
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, Opcode
from nibblecore.hdl.cambriconq.program.job import InstructionFields
from nibblecore.hdl.cambriconq.quantize.squ_setup import SquSettings
from nibblecore.hdl.config import CambriconqConfig

from .scoreboard import Scoreboard

__all__ = ["Constants", "Controller", "Lane"]


class Lane(IntEnum):
    """Who carries an instruction out; every lane one at a time."""

    LOAD = 0
    STORE = 1
    COMPUTE = 2


_LANES = {
    Lane.LOAD: (Opcode.SLOAD, Opcode.VLOAD, Opcode.QLOAD),
    Lane.STORE: (Opcode.SSTORE, Opcode.VSTORE, Opcode.QSTORE, Opcode.QMOVE, Opcode.VTURN, Opcode.WGSTORE),
}


class Constants(data.Struct):
    """What CROSET has set."""

    optimizer: data.ArrayLayout(32, 6)  # c1..c5, ε
    use_m: 1
    use_rsqrt: 1
    core_squ: SquSettings
    memory_squ: SquSettings


_EIGHT_BITS = {"candidates": [{"size": 1, "clip": 127}] * 4}
"""An SQU's settings after a reset."""


class Controller(wiring.Component):
    """Starts instructions in program order; CROSET and HALT are done here.

    An instruction starts when its lane is free and no instruction at work touches what it touches, where one of the two writes
    (`Scoreboard`). Besides, those exclude each other that share a port: VSTORE and VTURN with MM and CONV, and with an engine beside
    the memory WGSTORE with loads and with fetching. CROSET waits for the lane that reads the constant.

    A program ends at HALT, at the first instruction that is not in order, when a lane reports an error, or at ``stop``. Then nothing more is
    started, and what is at work ends. It ended with the earliest instruction that failed; ``started`` tells which others have run.
    Nothing of an instruction that fails its check has been moved. What a program ended with stays until the next ``start``.

    Latency: an instruction that waits for nothing starts 3 + 3·r cycles after it is at hand, r its ranges, at most 4; CROSET takes 3.
    Throughput: an instruction every 3 + 3·r cycles, or as fast as `Fetcher` brings them where that takes longer.

    Parameters
    ----------
    config : CambriconqConfig

    Members
    -------
    start : In(1)
        Not while ``busy``.
    entry : In(32)
        Byte address of the first instruction, a multiple of an instruction; counts with ``start``.
    stop : In(1)
        Start nothing more.
    memory_bytes : In(33)
        Addresses below it may be touched.
    busy : Out(1)
        From the cycle after ``start`` until all has ended.
    code : Out(4)
        Why the program ended, 0 at HALT.
    index : Out(32)
        Instruction that is next to start, or that ended it.
    started : Out(32)
        Instructions that have been started.
    phase : Out(3)
        That of the oldest instruction at work; where none is, of the last that was.
    read_command : Out(stream of `command_layout`)
    read_data : In(stream of 8·line_bytes bits)
        Instructions from memory.
    read_error : In(1)
        Sticky, of their reader.
    instructions : Out(512).array(3)
        One a `Lane`; constant while the lane works.
    starts : Out(3)
        One cycle, a bit for each `Lane`.
    ended : In(3)
        The same: it has ended.
    codes : In(4).array(3)
        With that: why, 0 if all went well.
    constants : Out(Constants)
        What CROSET has set.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "entry": In(32),
                "stop": In(1),
                "memory_bytes": In(33),
                "busy": Out(1),
                "code": Out(4),
                "index": Out(32),
                "started": Out(32),
                "phase": Out(3),
                "read_command": Out(stream.Signature(command_layout())),
                "read_data": In(stream.Signature(8 * config.line_bytes)),
                "read_error": In(1),
                "instructions": Out(8 * INSTRUCTION_BYTES).array(len(Lane)),
                "starts": Out(len(Lane)),
                "ended": In(len(Lane)),
                "codes": In(4).array(len(Lane)),
                "constants": Out(Constants, init={"core_squ": _EIGHT_BITS, "memory_squ": _EIGHT_BITS}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fetcher = fetcher = Fetcher(self.config.line_bytes)
        m.submodules.checker = checker = InstructionChecker(self.config)
        m.submodules.scoreboard = scoreboard = Scoreboard(len(Lane))
        connect(m, fetcher.command, self.read_command)
        connect(m, self.read_data, fetcher.data)
        next_one, opcode = fetcher.o.payload.instruction, fetcher.o.payload.instruction[:8]
        m.d.comb += [
            fetcher.start.eq(self.start & ~self.busy),
            fetcher.entry.eq(self.entry),
            fetcher.memory_bytes.eq(self.memory_bytes),
            fetcher.read_error.eq(self.read_error),
            checker.instruction.eq(next_one),
            checker.memory_bytes.eq(self.memory_bytes),
            scoreboard.place.eq(checker.place),
            scoreboard.place_valid.eq(checker.place_valid),
            scoreboard.ended.eq(self.ended),
        ]

        at_work = Signal(len(Lane))
        stopping = Signal()
        reason = Signal(4)
        failed, failure, place = self._failures(m)
        issues = Signal()
        may_issue = Signal()
        self._issue(m, next_one, at_work, scoreboard.waits, fetcher, issues, may_issue)
        m.d.comb += [scoreboard.issue.eq(Mux(issues, self._lane(opcode), 0))]
        m.d.sync += [at_work.eq((at_work & ~self.ended) | scoreboard.issue), self.starts.eq(scoreboard.issue)]
        with m.If(self.stop):
            m.d.sync += stopping.eq(1)

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [stopping.eq(0), reason.eq(ErrorCode.NONE)]
                with m.If(self.start):
                    m.d.sync += [self.index.eq(0), self.started.eq(0), self.code.eq(ErrorCode.NONE), failed.eq(0), self.phase.eq(0)]
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.comb += scoreboard.fresh.eq(1)
                with m.If(stopping | failed):
                    m.next = "END"
                with m.Elif(fetcher.o.valid):
                    m.d.sync += reason.eq(fetcher.o.payload.code)
                    m.next = "END"
                    with m.If(fetcher.o.payload.code == ErrorCode.NONE):
                        m.d.comb += checker.start.eq(1)
                        m.next = "CHECK"
            with m.State("CHECK"), m.If(checker.done):
                m.d.sync += reason.eq(checker.code)
                m.next = "ISSUE"
                with m.If(checker.code == ErrorCode.NONE):
                    with m.If(~self._fits(next_one)):
                        m.d.sync += reason.eq(ErrorCode.BAD_FORMAT)
                        m.next = "END"
                    with m.If(opcode == Opcode.HALT):
                        m.next = "END"
                with m.Else():
                    m.next = "END"
            with m.State("ISSUE"):
                with m.If(stopping | failed):
                    m.next = "END"
                with m.Elif(may_issue):
                    m.d.comb += [issues.eq(opcode != Opcode.CROSET), fetcher.o.ready.eq(1)]
                    m.d.sync += [self.index.eq(self.index + 1), self.started.eq(self.started + 1)]
                    with m.If(opcode == Opcode.CROSET):
                        self._set(m, next_one)
                    m.next = "NEXT"
            with m.State("END"):
                m.d.comb += fetcher.drop.eq(1)
                with m.If(~at_work.any() & fetcher.idle):
                    m.d.sync += self.code.eq(reason)
                    with m.If(failed):
                        m.d.sync += [self.code.eq(failure), self.index.eq(place)]
                    m.next = "IDLE"
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m

    @staticmethod
    def _lane(opcode: Value) -> Value:
        """One-hot."""
        lanes = [Cat(opcode == int(o) for o in _LANES[lane]).any() for lane in (Lane.LOAD, Lane.STORE)]
        return Cat(*lanes, ~Cat(lanes).any())

    def _issue(
        self, m: Module, next_one: Value, at_work: Signal, waits: Signal, fetcher: Fetcher, issues: Signal, may_issue: Signal
    ) -> None:
        """Whether the next instruction may start, and what the lanes are given."""
        opcode, register = next_one[:8], next_one[8:16]
        # VSTORE or VTURN, MM or CONV, WGSTORE by the engine
        ports = Signal()
        products = Signal()
        updates = Signal()
        kinds = (
            (ports, Lane.STORE, _PORTS),
            (products, Lane.COMPUTE, _PRODUCTS),
            (updates, Lane.STORE, (Opcode.WGSTORE,) if self.config.dram else ()),
        )
        for kind, lane, opcodes in kinds:
            m.d.comb += kind.eq(at_work[lane] & _among(self.instructions[lane][:8], opcodes))
        wanted = Signal(len(Lane))
        m.d.comb += wanted.eq(self._lane(opcode))
        is_update = _among(opcode, (Opcode.WGSTORE,) if self.config.dram else ())
        excluded = (
            (_among(opcode, _PORTS) & products)
            | (_among(opcode, _PRODUCTS) & ports)
            | (wanted[Lane.LOAD] & updates)
            | (is_update & (at_work[Lane.LOAD] | ~fetcher.idle))
        )
        readers = Mux(register >= 32, 1 << Lane.LOAD, 1 << Lane.STORE)
        # While an update waits for anything but the fetcher, the instructions behind it are fetched, since for long none can be.
        clear = Signal()
        m.d.comb += [
            clear.eq(~(wanted & at_work).any() & ~waits.any()),
            may_issue.eq(clear & ~excluded),
            fetcher.hold.eq(updates | (is_update & fetcher.o.valid & clear & ~at_work[Lane.LOAD])),
        ]
        with m.If(opcode == Opcode.CROSET):
            m.d.comb += may_issue.eq(~(readers & at_work).any())
        for lane in Lane:
            with m.If(issues & wanted[lane]):
                m.d.sync += self.instructions[lane].eq(next_one)

    def _failures(self, m: Module) -> tuple[Signal, Signal, Signal]:
        """Whether an instruction has failed, why, and the earliest one's number; keeps the numbers of those at work."""
        failed = Signal()
        failure = Signal(4, reset_less=True)
        place = Signal(32, reset_less=True)
        found, why, where = failed, failure, place
        oldest, phase, any_busy = Const(0, 32), self.phase, Const(0)
        for lane in Lane:
            number, busy = Signal(32, name=f"number{lane}", reset_less=True), Signal(name=f"busy{lane}")
            with m.If(self.starts[lane]):
                m.d.sync += [number.eq(self.index - 1), busy.eq(1)]
            with m.Elif(self.ended[lane]):
                m.d.sync += busy.eq(0)
            fails, earlier = self.ended[lane] & (self.codes[lane] != ErrorCode.NONE), Signal(name=f"earlier{lane}")
            m.d.comb += earlier.eq(fails & (~found | (number < where)))
            found, why, where = found | fails, Mux(earlier, self.codes[lane], why), Mux(earlier, number, where)
            older = Signal(name=f"older{lane}")
            m.d.comb += older.eq(busy & (~any_busy | (number < oldest)))
            oldest, phase = Mux(older, number, oldest), Mux(older, self.instructions[lane][16:19], phase)
            any_busy = any_busy | busy
        m.d.sync += [failed.eq(found), failure.eq(why), place.eq(where), self.phase.eq(phase)]
        return failed, failure, place

    def _fits(self, next_one: Value) -> Value:
        """Whether every candidate of an instruction that quantizes fits its slot."""
        opcode, slot = next_one[:8], InstructionFields(next_one, Opcode.QLOAD)["slot"]
        settings = Mux(opcode == Opcode.QLOAD, self.constants.memory_squ.as_value(), self.constants.core_squ.as_value())
        squ = SquSettings(settings)
        too_wide = Cat((squ.candidates[n].size >= slot) & (squ.count >= n if n else 1) for n in range(4)).any()
        return ~(_among(opcode, (Opcode.QLOAD, Opcode.QSTORE, Opcode.QMOVE)) & too_wide)

    def _set(self, m: Module, next_one: Value) -> None:
        """CROSET; the checker has seen to it that register and value are in order."""
        register, value = next_one[8:16], next_one[32:64]
        with m.If(register < 6):
            m.d.sync += self.constants.optimizer[register[:3]].eq(value)
        with m.If(register == 6):
            m.d.sync += [self.constants.use_m.eq(value[0]), self.constants.use_rsqrt.eq(value[1])]
        for settings, first in ((self.constants.core_squ, 16), (self.constants.memory_squ, 32)):
            with m.If(register == first):
                m.d.sync += [
                    settings.count.eq(value[:2]),
                    settings.metric.eq(value[2:4]),
                    settings.bypass.eq(value[4]),
                    settings.exponent.eq(value[8:16]),
                ]
            for number in range(4):
                candidate = settings.candidates[number]
                with m.If(register == first + 1 + number):
                    m.d.sync += [candidate.size.eq(value[:2]), candidate.offset.eq(value[4:8]), candidate.clip.eq(value[16:31])]


_PORTS = (Opcode.VSTORE, Opcode.VTURN)
_PRODUCTS = (Opcode.MM, Opcode.CONV)


def _among(opcode: Value, opcodes: tuple[Opcode, ...]) -> Value:
    return Cat(opcode == int(o) for o in opcodes).any() if opcodes else Const(0)
