"""What the drivers of both machines have in common: how an accelerator is reached, its memory, its counters and its errors."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Generic, Self, TypeAlias, TypeVar

from nibblecore.hdl.bus.register_map import RegisterMap
from nibblecore.hdl.cambriconq.program.errors import ErrorCode as CambriconqErrorCode
from nibblecore.hdl.config import CambriconqConfig, LtoaqConfig
from nibblecore.hdl.ltoaq.command.errors import ErrorCode as LtoaqErrorCode

from .transport import Transport, identify, perform

if TYPE_CHECKING:
    from .simulation import Simulation

__all__ = ["Accelerator", "AcceleratorError"]

ErrorCode: TypeAlias = LtoaqErrorCode | CambriconqErrorCode
C = TypeVar("C", bound=LtoaqConfig | CambriconqConfig)


class AcceleratorError(RuntimeError):
    """The accelerator gave up what was at work. Another command or program may follow.

    Members
    -------
    code : ErrorCode of the machine
    work : str
        The command or the instruction, in words.
    """

    def __init__(self, code: ErrorCode, work: str) -> None:
        super().__init__(f"{code.name} in {work}: {code.cause}; {code.remedy}")
        self.code, self.work = code, work


class Accelerator(Generic[C]):
    """One accelerator and its memory. As a context manager it closes the simulation that it started.

    Parameters
    ----------
    config : LtoaqConfig or CambriconqConfig
        Must be what the accelerator was built with; checked against its registers.
    transport : "simulation", "functional" or Transport
        The Verilog under Verilator, the functional model, or whatever else reaches an accelerator.
    seed : int
        Of the simulation's stalls and of what its registers without a reset value hold at first.
    waves : bool or path
        Write a waveform of the simulation in FST: to this file, or ``build/waves/<machine>_<config>.fst``.
    stall : float
        Probability, 0 ≤ stall < 1, that in a cycle a channel of the simulated memory or register bus is not ready or not valid.
    latency : int
        Cycles from a read address to its first beat in the simulation, at least 1.
    memory_size : int
        Bytes, a positive multiple of ``config.bus_bytes``, at most 4 GiB. Of a transport that is given no more
        than that is used, and no more than it has.
    timeout_cycles : int
        Clock cycles after which a command or program is given up.

    Members
    -------
    config, transport, timeout_cycles

    Raises RuntimeError unless ID, CONFIG0 and CONFIG1 are those of `config`, and ValueError for options out of range.
    """

    REGISTERS: ClassVar[RegisterMap]
    NUMBER: ClassVar[int]
    """What ID reads as."""
    COUNTERS: ClassVar[tuple[str, ...]]
    """Registers that count, and wrap."""
    _simulation: "Simulation | None" = None

    def __init__(
        self,
        config: C,
        *,
        transport: str | Transport = "simulation",
        seed: int = 0,
        waves: bool | str | Path = False,
        stall: float = 0.0,
        latency: int = 20,
        memory_size: int = 1 << 24,
        timeout_cycles: int = 100_000_000,
    ) -> None:
        self.config, self.timeout_cycles = config, timeout_cycles
        if waves and transport != "simulation":
            raise ValueError("only the simulation writes waves")
        if transport == "simulation":
            from .simulation import Simulation

            self._simulation = Simulation(config, waves=waves, latency=latency, stall=stall, seed=seed, memory_size=memory_size)
            self.transport: Transport = self._simulation
        elif transport == "functional":
            self.transport = self._functional(config, memory_size)
        elif isinstance(transport, str):
            raise ValueError(f'transport is "simulation", "functional" or a Transport, not {transport!r}')
        else:
            self.transport = transport
        self._memory_size = min(memory_size, self.transport.memory_size)
        try:
            identify(self.transport, self.REGISTERS, self.NUMBER, self._config_words(config), config.name)
            if not isinstance(transport, str):
                self._stop()
            self._prepare()
            self._last = self._counts()
        except BaseException:
            self.close()
            raise
        self._total = dict.fromkeys(self._last, 0)

    @staticmethod
    def _functional(config: C, memory_size: int) -> Transport:
        """The functional model of the machine."""
        raise NotImplementedError

    @staticmethod
    def _config_words(config: C) -> tuple[int, ...]:
        """What CONFIG0, CONFIG1, … read as."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Have what another driver may have left at work end."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """Registers that are set once after a reset."""
        raise NotImplementedError

    @property
    def memory_size(self) -> int:
        """Bytes of memory, from address 0; the accelerator may touch them all, and nothing else."""
        return self._memory_size

    def read_memory(self, address: int, size: int) -> bytes:
        """As of `Transport`."""
        return self.transport.read_memory(address, size)

    def write_memory(self, address: int, data: bytes) -> None:
        """As of `Transport`."""
        self.transport.write_memory(address, data)

    def counters(self) -> dict[str, int]:
        """What the machine has counted since this object was made, by register name in lower case; cycles are 0 where there is no clock.

        The sums go on where a register wraps and across `reset`. One command or program counts modulo 2³²; of one that a reset
        interrupts nothing is counted.
        """
        self._count()
        return dict(self._total)

    def reset(self) -> None:
        """Reset the accelerator; memory and counters stay. Raises RuntimeError over a transport that cannot."""
        reset = getattr(self.transport, "reset", None)
        if reset is None:
            raise RuntimeError(f"a {type(self.transport).__name__} cannot reset the accelerator")
        reset()
        self._prepare()
        self._last = self._counts()

    def close(self) -> None:
        """Free the simulation; a transport that was given stays as it is."""
        if self._simulation is not None:
            self._simulation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _count(self, now: dict[str, int] | None = None) -> None:
        """To be called after every command or program, with `_counts` as it was then, if that was read."""
        now = now or self._counts()
        for name, count in now.items():
            self._total[name] += (count - self._last[name]) % (1 << 32)
        self._last = now

    def _counts(self) -> dict[str, int]:
        return self._named(perform(self.transport, *self._reads(*self.COUNTERS)))

    def _named(self, counts: Sequence[int]) -> dict[str, int]:
        return {name.lower(): count for name, count in zip(self.COUNTERS, counts, strict=True)}

    def _reads(self, *names: str) -> list[tuple[str, int]]:
        """Reads of registers, for `perform`."""
        return [("read_register", self.REGISTERS[name].offset) for name in names]

    def _writes(self, **values: int) -> list[tuple[str, int, int]]:
        """Writes of registers, for `perform`."""
        return [("write_register", self.REGISTERS[name].offset, value) for name, value in values.items()]

    def _read(self, name: str) -> int:
        return self.transport.read_register(self.REGISTERS[name].offset)

    def _write(self, name: str, value: int) -> None:
        self.transport.write_register(self.REGISTERS[name].offset, value)
