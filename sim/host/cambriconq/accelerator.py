"""The driver: programs on a Cambricon-Q accelerator, over any transport."""

from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, decode
from nibblecore.hdl.cambriconq.registers import ID, PHASES, REGISTERS, config_words
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.compiler.asm import listing
from nibblecore.sim.host.accelerator import Accelerator, AcceleratorError
from nibblecore.sim.host.transport import Transport, perform

from .functional import FunctionalTransport

__all__ = ["CambriconqAccelerator", "ProgramError"]


_POLLS = 100_000
"""Reads of STATUS until a bus counts as silent."""


class ProgramError(AcceleratorError):
    """A program was stopped at instruction `index`, counted from 0; the first `started` have run, this one perhaps in part."""

    code: ErrorCode

    def __init__(self, code: ErrorCode, work: str, index: int, started: int) -> None:
        super().__init__(code, work)
        self.index, self.started = index, started


class CambriconqAccelerator(Accelerator[CambriconqConfig]):
    """One accelerator and its memory; programs run one at a time, each to its end.

    Parameters and the members that every driver has: `nibblecore.sim.host.accelerator.Accelerator`. Counters are ``cycles``, in which a
    program ran, ``array_cycles``, those in which the PE array took a line, and ``phase0`` to ``phase7``, which add up to the cycles: those
    in which the oldest instruction at work was of that phase; where none is at work, the last that was, at first phase 0.
    """

    REGISTERS = REGISTERS
    NUMBER = ID
    COUNTERS = ("CYCLES", "ARRAY_CYCLES", *(f"PHASE{n}" for n in range(PHASES)))

    @staticmethod
    def _functional(config: CambriconqConfig, memory_size: int) -> Transport:
        return FunctionalTransport(config, memory_size)

    @staticmethod
    def _config_words(config: CambriconqConfig) -> tuple[int, ...]:
        return config_words(config)

    def _prepare(self) -> None:
        self._write("MEMORY_LAST", self.memory_size - 1)
        self.clear_flags()
        self._write("IRQ_STATUS", REGISTERS["IRQ_STATUS"].mask)
        self._write("IRQ_ENABLE", REGISTERS["IRQ_ENABLE"].mask)

    def _stop(self) -> None:
        if self.flags()["busy"]:
            self._write("CONTROL", REGISTERS["CONTROL"].pack(stop=1))
            if not any(not self.flags()["busy"] for _ in range(_POLLS)):
                raise TimeoutError("the program that another driver left does not end; the accelerator needs a reset")

    def run(self, entry: int) -> None:
        """Run the program at byte address `entry`, a multiple of 64, to its HALT.

        Raises `ProgramError` where the program is refused, and TimeoutError if it has not ended after `timeout_cycles`: then it is stopped
        (CONTROL.stop). Either way what was at work has ended, and another program may run; unless that did not end within as many cycles
        again, because memory does not answer, say: then only a reset helps.
        """
        late = False
        reads = self._reads(*self.COUNTERS, "ERROR", "INDEX")
        starts = self._writes(IRQ_STATUS=REGISTERS["IRQ_STATUS"].mask, START=entry)
        try:
            answers = perform(self.transport, *starts, ("wait", self.timeout_cycles), *reads)
        except TimeoutError:
            late = True
            stops = self._writes(CONTROL=REGISTERS["CONTROL"].pack(stop=1))
            answers = perform(self.transport, *stops, ("wait", self.timeout_cycles), *reads)
        *counts, error, index = answers[-len(reads) :]
        self._count(self._named(counts))
        code = ErrorCode(REGISTERS["ERROR"].unpack(error)["code"])
        if code != ErrorCode.NONE:
            raise ProgramError(code, self._instruction(entry, index), index, self._read("STARTED"))
        if late:
            raise TimeoutError(
                f"the program at {entry:#x} ran for over {self.timeout_cycles:,} cycles; stopped before instruction {index}"
            )

    def flags(self) -> dict[str, int]:
        """The fields of STATUS: `busy`, and `nan`, `infinity` and `dropped`, which stay until `clear_flags` or a reset."""
        return REGISTERS["STATUS"].unpack(self._read("STATUS"))

    def clear_flags(self) -> None:
        """Clear `nan`, `infinity` and `dropped` of `flags`."""
        self._write("CONTROL", REGISTERS["CONTROL"].pack(clear_flags=1))

    def _instruction(self, entry: int, index: int) -> str:
        """An instruction in words, with its text as memory has it now."""
        at = entry + index * INSTRUCTION_BYTES
        if entry % INSTRUCTION_BYTES:
            text = f"{entry:#x} is no multiple of {INSTRUCTION_BYTES}"
        elif at + INSTRUCTION_BYTES > self.memory_size:
            text = f"at {at:#x}, beyond memory"
        else:
            try:
                text = listing(decode(self.read_memory(at, INSTRUCTION_BYTES)))
            except ValueError as error:
                text = str(error)
        return f"instruction {index} of the program at {entry:#x} ({text})"
