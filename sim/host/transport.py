"""How a driver reaches an accelerator: registers, memory and the interrupt."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nibblecore.hdl.bus.register_map import RegisterMap

__all__ = ["BusError", "Transport", "identify", "perform", "read_later"]


class BusError(RuntimeError):
    """A register access was answered with an error."""


class Transport(Protocol):
    """An accelerator with its memory: a simulation, a functional model, or a board at the end of a wire.

    Calls take effect in their order: what was written to memory is there for a program that a register write starts afterwards, and what
    the accelerator had written when the interrupt rose is there to be read. A port that caches or posts writes must see to that.

    Members
    -------
    memory_size : int
        Bytes of memory that accelerator and host share, from address 0.
    """

    @property
    def memory_size(self) -> int: ...

    def read_register(self, offset: int) -> int:
        """The 32-bit register at byte `offset`, a multiple of 4, also while a program runs. Raises an exception if the access is refused."""
        ...

    def write_register(self, offset: int, value: int) -> None:
        """All 32 bits of the register at byte `offset`, a multiple of 4, in one access; returns when it has been answered.

        `value` is 0 to 2³² − 1. Raises an exception if the access is refused; the register is unchanged then.
        """
        ...

    def read_memory(self, address: int, size: int) -> bytes:
        """`size` bytes, at least 0, from byte `address` on; neither needs to be a multiple of anything.

        Raises ValueError if some are outside 0..`memory_size` − 1.
        """
        ...

    def write_memory(self, address: int, data: bytes) -> None:
        """`data` to byte `address` and up, and to no byte beside them; neither address nor length needs to be a multiple of anything.

        Raises ValueError, with nothing written, if some are outside 0..`memory_size` − 1.
        """
        ...

    def wait(self, timeout_cycles: int) -> None:
        """Return when the interrupt is up; raise TimeoutError if `timeout_cycles` clock cycles pass without one."""
        ...


def perform(transport: Transport, *calls: tuple[Any, ...]) -> list[Any]:
    """What calls of `Transport`'s methods return, made one after the other: each is a method's name and its arguments.

    A transport with a ``perform`` of its own, which takes the same calls and returns or raises the same, makes them its way: over a line
    they take one exchange instead of one each. Behind a ``wait`` come reads only.
    """
    own = getattr(transport, "perform", None)
    return own(*calls) if own else [getattr(transport, name)(*arguments) for name, *arguments in calls]


def read_later(transport: Transport, address: int, size: int) -> Callable[[], bytes]:
    """`read_memory` of bytes that need not be there at once: what is returned returns them.

    Until then only `write_memory` may change them. A transport with a ``read_later`` of its own, which takes and returns the same, reads them
    when it suits: a line that carries both directions at once, beside what is written.
    """
    own = getattr(transport, "read_later", None)
    if own:
        later: Callable[[], bytes] = own(address, size)
        return later
    data = transport.read_memory(address, size)
    return lambda: data


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
