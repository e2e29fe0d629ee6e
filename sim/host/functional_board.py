"""A board without a board and without its design: the golden link before a machine's functional model."""

from typing import Any

from nibblecore.hdl.boards.targets import build_of
from nibblecore.hdl.link.byte_link import DEPTH
from nibblecore.hdl.link.command_executor import CommandExecutor
from nibblecore.sim.golden.link.byte_link import ByteLink
from nibblecore.sim.machines import Config

from .functional import ModelTransport
from .transport import BusError

__all__ = ["FunctionalBoard", "Port"]

_ADDRESS_BITS = 7


class Port:
    """A functional model as the golden link has it."""

    def __init__(self, model: ModelTransport) -> None:
        self.model = model

    @property
    def memory(self) -> Any:
        return self.model.memory.data

    def read_register(self, offset: int) -> int:
        try:
            return self.model.read_register(offset)
        except BusError:
            raise LookupError(offset) from None

    def write_register(self, offset: int, value: int) -> None:
        try:
            self.model.write_register(offset, value)
        except BusError:
            raise LookupError(offset) from None

    def wait(self, cycles: int) -> bool:
        try:
            self.model.wait(cycles)
        except TimeoutError:
            return False
        return True


class FunctionalBoard:
    """A `Line` with a board at its end that answers at once, and says that its clock is `clock_hz`."""

    def __init__(self, config: Config, model: ModelTransport, clock_hz: int = 25_000_000) -> None:
        identity = CommandExecutor(model.memory_size, clock_hz, build_of(config), DEPTH, _ADDRESS_BITS).identity
        self._board = ByteLink(Port(model), identity, _ADDRESS_BITS)
        self._coming = b""

    def write(self, data: bytes) -> None:
        self._coming += self._board.receive(data)

    def read(self) -> bytes:
        data, self._coming = self._coming, b""
        return data

    def close(self) -> None:
        pass
