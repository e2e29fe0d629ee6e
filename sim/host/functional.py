"""What the functional models of both machines have in common behind a transport: registers, memory and the interrupt, no time."""

from collections.abc import Sequence

import numpy as np
from nibblecore.hdl.bus.register_map import Access, Register, RegisterMap

from .transport import BusError

__all__ = ["ModelTransport"]


class ModelTransport:
    """Registers and memory of a functional model; a `Transport`. What a command register starts has ended when its write returns.

    Parameters
    ----------
    registers : RegisterMap
        With ID, CONFIG0, CONFIG1, …, IRQ_STATUS and IRQ_ENABLE.
    number : int
        What ID reads as.
    words : sequence of int
        What CONFIG0, CONFIG1, … read as.
    memory_size : int
        Bytes, all 0 at first.

    Members
    -------
    memory : numpy array of uint8
    detail : str
        What was wrong with the last command or program that failed, in words.
    """

    def __init__(self, registers: RegisterMap, number: int, words: Sequence[int], memory_size: int) -> None:
        self.memory = np.zeros(memory_size, np.uint8)
        self.detail = ""
        self._map = registers
        self._places = {register.offset: register for register in registers}
        self._fixed = {"ID": number} | {f"CONFIG{place}": word for place, word in enumerate(words)}
        self.reset()

    @property
    def memory_size(self) -> int:
        return len(self.memory)

    def reset(self) -> None:
        """Registers as after a reset; the memory keeps its contents."""
        self._registers = {register.name: register.reset for register in self._map} | self._fixed

    def read_register(self, offset: int) -> int:
        register = self._register(offset)
        if not register.access.readable:
            raise BusError(f"register {register.name} is write only")
        return self._registers[register.name]

    def write_register(self, offset: int, value: int) -> None:
        register = self._register(offset)
        if not register.access.writable:
            raise BusError(f"register {register.name} is read only")
        if register.access is Access.W:
            self._command(register.name, value)
        elif register.access is Access.RW1C:
            self._registers[register.name] &= ~value
        else:
            self._registers[register.name] = value & register.mask

    def read_memory(self, address: int, size: int) -> bytes:
        self._inside(address, size)
        return self.memory[address : address + size].tobytes()

    def write_memory(self, address: int, data: bytes) -> None:
        self._inside(address, len(data))
        self.memory[address : address + len(data)] = np.frombuffer(data, np.uint8)

    def wait(self, timeout_cycles: int) -> None:
        if not self._registers["IRQ_STATUS"] & self._registers["IRQ_ENABLE"]:
            raise TimeoutError("no interrupt is pending and nothing is at work")

    def _command(self, name: str, value: int) -> None:
        """What a write to a register that is write only does."""
        raise NotImplementedError

    def _set(self, name: str, **fields: int) -> None:
        register = self._map[name]
        self._registers[name] = register.pack(**register.unpack(self._registers[name]) | fields)

    def _register(self, offset: int) -> Register:
        if offset not in self._places:
            raise BusError(f"{self._map.name} has no register at {offset:#x}")
        return self._places[offset]

    def _inside(self, address: int, size: int) -> None:
        if address < 0 or size < 0 or address + size > self.memory_size:
            raise ValueError(f"bytes {address:#x}..{address + size:#x} are not all in a memory of {self.memory_size:#x} bytes")
