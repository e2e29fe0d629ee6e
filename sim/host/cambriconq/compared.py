"""Hardware and functional model side by side: the same memory, the same programs, any difference an error."""

from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, decode
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine, MachineError
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.golden.cambriconq.vector.sfu_function import function

from .accelerator import CambriconqAccelerator, ProgramError

__all__ = ["Compared", "Ended", "Mismatch"]

# Of several wrong operands of a product the hardware may meet another one first.
_WRONG_OPERANDS = {ErrorCode.BUFFER_RANGE, ErrorCode.TAG_MISMATCH, ErrorCode.NO_TAG}


class Mismatch(AssertionError):
    """The hardware did something else than the model."""


class Ended(NamedTuple):
    """How a program ended: NONE at its HALT, else why that `instruction` was refused; those below `started` have run."""

    code: ErrorCode
    instruction: int
    started: int


class Compared:
    """A simulated Cambricon-Q and its functional model.

    Parameters
    ----------
    config : CambriconqConfig
    memory_size : int
        Bytes, a multiple of 4; all 0 at first.
    seed : int
        Of the simulation's stalls and of what its registers and memories hold at first.
    stall : float
        Share of the cycles in which the simulated bus waits, 0 to below 1.
    waves : bool
        Write a waveform below build/waves.
    timeout_cycles : int
        Clock cycles after which a program is given up with TimeoutError.

    Members
    -------
    hardware : CambriconqAccelerator
    model : Machine
    """

    def __init__(
        self,
        config: CambriconqConfig,
        *,
        memory_size: int,
        seed: int = 0,
        stall: float = 0.0,
        waves: bool = False,
        timeout_cycles: int = 100_000_000,
    ) -> None:
        self.config = config
        self.hardware = CambriconqAccelerator(
            config, seed=seed, stall=stall, waves=waves, memory_size=memory_size, timeout_cycles=timeout_cycles
        )
        self.model = self._fresh()

    def _fresh(self) -> Machine:
        return Machine(self.config, np.zeros(self.hardware.memory_size, np.uint8), function)

    def start_anew(self, memory: bytes) -> None:
        """Both as after a reset, with this memory."""
        self.hardware.reset()
        self.model = self._fresh()
        self.write_memory(0, memory)

    def write_memory(self, address: int, content: bytes) -> None:
        self.hardware.write_memory(address, content)
        self.model.memory[address : address + len(content)] = np.frombuffer(content, np.uint8)

    def run_at(self, entry: int) -> Ended:
        """Both run the program at byte address `entry`, then all of memory and the flags are compared.

        Raises `Mismatch` at the first difference. NBout, which no instruction has to write before another reads it, is undefined in
        the hardware and 0 in the model.
        """
        ended = expected = Ended(ErrorCode.NONE, 0, 0)
        try:
            self.hardware.run(entry)
        except ProgramError as error:
            ended = Ended(error.code, error.index, error.started)
        try:
            self.model.run(entry, decode, INSTRUCTION_BYTES, ended.started)
        except MachineError as error:
            expected = Ended(error.code, error.index, ended.started)
        same = ended.code == expected.code or {ended.code, expected.code} <= _WRONG_OPERANDS
        if not same or ended.instruction != expected.instruction:
            raise Mismatch(f"{_told(ended)}, not {_told(expected)}")
        memory = np.frombuffer(self.hardware.read_memory(0, self.hardware.memory_size), np.uint8)
        wrong = np.flatnonzero(memory != self.model.memory)
        if len(wrong):
            at = int(wrong[0]) & ~3
            words = [int(source[at : at + 4].view(np.uint32)[0]) for source in (memory, self.model.memory)]
            raise Mismatch(f"{len(wrong)} bytes of memory differ; at {at:#x} the word is {words[0]:#010x}, not {words[1]:#010x}")
        flags = self.hardware.flags()
        if (bool(flags["nan"]), bool(flags["infinity"])) != (self.model.nan_seen, self.model.infinity_seen):
            raise Mismatch(f"flags are {flags}, not nan {self.model.nan_seen}, infinity {self.model.infinity_seen}")
        return expected

    def close(self) -> None:
        self.hardware.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _told(ended: Ended) -> str:
    return f"ended with {ended.code.name} at instruction {ended.instruction}" if ended.code else "ended at its HALT"
