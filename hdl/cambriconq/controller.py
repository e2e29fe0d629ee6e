"""Fetches a program, checks its instructions one by one, and has the units carry them out in order."""

from enum import IntEnum

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..bus.splitter import command_layout
from ..config import CambriconqConfig
from .checker import MEMORY_RANGE, MISALIGNED, NO_ERROR, InstructionChecker
from .isa import INSTRUCTION_BYTES, Constant, Opcode
from .squ_setup import SquSettings

__all__ = ["BANK_CONFLICT", "BUS_READ", "BUS_WRITE", "Constants", "Controller", "Unit"]

BUS_READ, BUS_WRITE, BANK_CONFLICT = 9, 10, 11
"""Error codes beside those of the checker and the units."""


class Unit(IntEnum):
    """Who carries an instruction out."""

    STRIPES = 0
    VECTORS = 1
    QUANTIZE = 2
    UPDATE = 3
    MATRIX = 4
    ARITHMETIC = 5


_UNITS = {
    Opcode.SLOAD: Unit.STRIPES, Opcode.SSTORE: Unit.STRIPES, Opcode.VLOAD: Unit.VECTORS, Opcode.VSTORE: Unit.VECTORS,
    Opcode.QLOAD: Unit.QUANTIZE, Opcode.QSTORE: Unit.QUANTIZE, Opcode.QMOVE: Unit.QUANTIZE, Opcode.WGSTORE: Unit.UPDATE,
    Opcode.MM: Unit.MATRIX, Opcode.CONV: Unit.MATRIX,
}  # fmt: skip


class Constants(data.Struct):
    """What CROSET has set."""

    optimizer: data.ArrayLayout(32, 6)  # c1..c5, ε
    use_m: 1
    use_rsqrt: 1
    core_squ: SquSettings
    memory_squ: SquSettings
    phase: 3


_EIGHT_BITS = {"candidates": [{"size": 1, "clip": 127}] * 4}
"""An SQU's settings after a reset."""


class Controller(wiring.Component):
    """One instruction at a time, in program order: fetch, check, carry out. CROSET and HALT are done here.

    A program ends at HALT, at the first instruction that is not in order, when a unit reports an error, when the bus does, or at
    `stop`. Nothing of an instruction that fails its check has been moved. What it ended with stays until the next `start`.

    Latency: an instruction costs its fetch, the check's 2 to 14 cycles and 2 more before its unit starts.

    Parameters
    ----------
    config : CambriconqConfig

    Members
    -------
    start, entry : In
        Byte address of the first instruction, a multiple of an instruction.
    stop : In
    memory_bytes : In
    busy : Out
    code : Out
        Why the program ended, 0 at HALT.
    index : Out
        Instruction that runs or ended it.
    read_command, read_data : Out and In streams
        Instructions from memory.
    read_error, write_error : In
        Sticky, of the DMAs.
    instruction : Out, 512 bits
        Constant while a unit works.
    starts : Out
        One cycle, a bit for each `Unit`.
    done : In
        The unit has ended.
    unit_code : In
        With `done`: why, 0 if all went well.
    constants : Out
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        super().__init__({
            "start": In(1), "entry": In(32), "stop": In(1), "memory_bytes": In(33), "busy": Out(1), "code": Out(4), "index": Out(32),
            "read_command": Out(stream.Signature(command_layout())), "read_data": In(stream.Signature(8 * config.line_bytes)),
            "read_error": In(1), "write_error": In(1), "instruction": Out(8 * INSTRUCTION_BYTES), "starts": Out(len(Unit)),
            "done": In(1), "unit_code": In(4), "constants": Out(Constants, init={"core_squ": _EIGHT_BITS, "memory_squ": _EIGHT_BITS}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.checker = checker = InstructionChecker(self.config)
        beats = INSTRUCTION_BYTES // self.config.line_bytes
        address, beat, stopping = Signal(32), Signal(range(max(2, beats))), Signal()
        opcode = self.instruction[:8]
        command = self.read_command
        m.d.comb += [
            checker.instruction.eq(self.instruction), checker.memory_bytes.eq(self.memory_bytes),
            command.payload.address.eq(address), command.payload.beats.eq(beats),
        ]  # fmt: skip
        with m.If(self.stop):
            m.d.sync += stopping.eq(1)

        def end(code: object) -> None:
            m.d.sync += self.code.eq(code)
            m.next = "IDLE"

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [address.eq(self.entry), stopping.eq(0)]
                with m.If(self.start):
                    m.d.sync += [self.index.eq(0), self.code.eq(NO_ERROR)]
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.sync += beat.eq(0)
                with m.If(stopping):
                    end(NO_ERROR)
                with m.Elif((address & (INSTRUCTION_BYTES - 1)).any()):
                    end(MISALIGNED)
                with m.Elif(address + INSTRUCTION_BYTES > self.memory_bytes):
                    end(MEMORY_RANGE)
                with m.Else():
                    m.d.comb += command.valid.eq(1)
                    with m.If(command.ready):
                        m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += self.read_data.ready.eq(1)
                with m.If(self.read_data.valid):
                    m.d.sync += [self.instruction.eq(Cat(self.instruction, self.read_data.payload)[len(self.read_data.payload) :]),
                                 beat.eq(beat + 1)]  # fmt: skip
                    with m.If(beat == beats - 1):
                        m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += checker.start.eq(1)
                m.next = "CHECKING"
            with m.State("CHECKING"), m.If(checker.done):
                with m.If(self.read_error):
                    end(BUS_READ)
                with m.Elif(checker.code != NO_ERROR):
                    end(checker.code)
                with m.Elif(opcode == Opcode.HALT):
                    end(NO_ERROR)
                with m.Elif(opcode == Opcode.CROSET):
                    self._set(m)
                    m.next = "NEXT"
                with m.Else():
                    m.next = "START"
            with m.State("START"):
                with m.Switch(opcode):
                    for number, unit in _UNITS.items():
                        with m.Case(int(number)):
                            m.d.comb += self.starts[int(unit)].eq(1)
                    with m.Default():
                        m.d.comb += self.starts[int(Unit.ARITHMETIC)].eq(1)
                m.next = "WORK"
            with m.State("WORK"), m.If(self.done):
                with m.If(self.read_error):
                    end(BUS_READ)
                with m.Elif(self.write_error):
                    end(BUS_WRITE)
                with m.Elif(self.unit_code != NO_ERROR):
                    end(self.unit_code)
                with m.Else():
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += [address.eq(address + INSTRUCTION_BYTES), self.index.eq(self.index + 1)]
                m.next = "FETCH"
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m

    def _set(self, m: Module) -> None:
        """CROSET; the checker has seen to it that register and value are in order."""
        register, value = self.instruction[8:16], self.instruction[32:64]
        with m.If(register < 6):
            m.d.sync += self.constants.optimizer[register[:3]].eq(value)
        with m.If(register == 6):
            m.d.sync += [self.constants.use_m.eq(value[0]), self.constants.use_rsqrt.eq(value[1])]
        with m.If(register == Constant.PHASE):
            m.d.sync += self.constants.phase.eq(value)
        for settings, first in ((self.constants.core_squ, 16), (self.constants.memory_squ, 32)):
            with m.If(register == first):
                m.d.sync += [settings.count.eq(value[:2]), settings.metric.eq(value[2:4]), settings.bypass.eq(value[4]),
                             settings.exponent.eq(value[8:16])]  # fmt: skip
            for number in range(4):
                candidate = settings.candidates[number]
                with m.If(register == first + 1 + number):
                    m.d.sync += [candidate.size.eq(value[:2]), candidate.offset.eq(value[4:8]), candidate.clip.eq(value[16:31])]
