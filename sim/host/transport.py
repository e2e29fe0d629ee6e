"""How a driver reaches an accelerator: registers, memory and the interrupt."""

from typing import Protocol

__all__ = ["Transport"]


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
