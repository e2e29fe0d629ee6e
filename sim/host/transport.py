"""How a driver reaches an accelerator: registers, memory and the interrupt."""

from collections.abc import Sequence
from typing import Protocol

from nibblecore.hdl.bus.register_map import RegisterMap

__all__ = ["Transport", "identify"]


class Transport(Protocol):
    """An accelerator with its memory: a simulation, a functional model, or a board at the end of a wire.

    Members
    -------
    memory_size : int
        Bytes of memory that accelerator and host share, from address 0.
    """

    @property
    def memory_size(self) -> int: ...

    def read_register(self, offset: int) -> int:
        """The 32-bit register at byte `offset`."""
        ...

    def write_register(self, offset: int, value: int) -> None: ...

    def read_memory(self, address: int, size: int) -> bytes: ...

    def write_memory(self, address: int, data: bytes) -> None: ...

    def wait(self, timeout_cycles: int) -> None:
        """Return when the interrupt is up; raise TimeoutError if `timeout_cycles` clock cycles pass without one."""
        ...


def identify(transport: Transport, registers: RegisterMap, number: int, words: Sequence[int], config: str) -> None:
    """Raise RuntimeError unless ID is `number` and CONFIG0, CONFIG1, … are `words`, those of the configuration named `config`."""
    found = transport.read_register(registers["ID"].offset)
    if found != number:
        raise RuntimeError(f"no {registers.name} accelerator: register ID is {found:#010x}, not {number:#010x}")
    for place, expected in enumerate(words):
        register = registers[f"CONFIG{place}"]
        there, here = register.unpack(transport.read_register(register.offset)), register.unpack(expected)
        if differing := [f"{field} is {there[field]}, not {here[field]}" for field in there if there[field] != here[field]]:
            raise RuntimeError(f"the accelerator was not built with config {config!r}: {', '.join(differing)}")
