"""How a host reaches a Cambricon-Q: its memory, and programs that run in it."""

from typing import Protocol

import numpy as np
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, decode
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine
from nibblecore.sim.golden.cambriconq.vector.sfu_function import function

__all__ = ["PHASES", "Backend", "FunctionalBackend"]

PHASES = 8
"""Counters of cycles that a program may choose from."""


class Backend(Protocol):
    """An accelerator with its memory: a simulation, the functional model, or a board at the end of a wire.

    Calls come one after the other; no program runs between two of them.

    Members
    -------
    memory_size : int
        Bytes of memory that accelerator and host share, from address 0.
    """

    @property
    def memory_size(self) -> int: ...

    def write_memory(self, address: int, data: bytes) -> None:
        """Bytes to any address. A `run` after it finds them. Raises ValueError, with nothing written, if they leave memory."""
        ...

    def read_memory(self, address: int, size: int) -> bytes:
        """`size` bytes, at least 0, from any address, as the last `run` and `write_memory` left them. ValueError if they leave memory."""
        ...

    def run(self, entry: int) -> None:
        """Run the program at byte address `entry`, a multiple of 64, to its HALT. Raises an exception where it stops before."""
        ...

    def phase_cycles(self) -> list[int]:
        """Cycles that each of the `PHASES` counters has counted, of all programs that have ended since the object was made.

        All 0 where there is no clock.
        """
        ...

    def cycles(self) -> int:
        """Cycles in which a program ran, of the same programs: the sum of `phase_cycles`."""
        ...


class FunctionalBackend:
    """The functional model: the same memory after every program as the hardware, and no time.

    Parameters
    ----------
    config : CambriconqConfig
        Of any size, also one that the hardware does not take.
    memory_size : int
        Bytes, a multiple of 4; all 0 at first.

    Members
    -------
    machine : Machine
    """

    def __init__(self, config: CambriconqConfig, memory_size: int) -> None:
        self.machine = Machine(config, np.zeros(memory_size, np.uint8), function)

    @property
    def memory_size(self) -> int:
        return len(self.machine.memory)

    def write_memory(self, address: int, data: bytes) -> None:
        self._inside(address, len(data))
        self.machine.memory[address : address + len(data)] = np.frombuffer(data, np.uint8)

    def read_memory(self, address: int, size: int) -> bytes:
        self._inside(address, size)
        return self.machine.memory[address : address + size].tobytes()

    def run(self, entry: int) -> None:
        """Raises `MachineError` where the program is stopped."""
        self.machine.run(entry, decode, INSTRUCTION_BYTES)

    def phase_cycles(self) -> list[int]:
        return [0] * PHASES

    def cycles(self) -> int:
        return 0

    def _inside(self, address: int, size: int) -> None:
        if address < 0 or address + size > self.memory_size:
            raise ValueError(f"{size} bytes at {address:#x} leave the memory of {self.memory_size:#x} bytes")
