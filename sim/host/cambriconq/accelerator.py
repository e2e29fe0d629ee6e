"""The driver: programs on a Cambricon-Q accelerator, over any transport."""

from types import TracebackType

from nibblecore.hdl.cambriconq.registers import ID, PHASES, REGISTERS, config_words
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.host.simulation import Simulation
from nibblecore.sim.host.transport import Transport, identify

__all__ = ["CambriconqAccelerator", "ProgramError"]

_OFFSET = {register.name: register.offset for register in REGISTERS}


class ProgramError(RuntimeError):
    """A program was stopped at instruction `index`, counted from 0; the first `started` have run, this one perhaps in part."""

    def __init__(self, code: ErrorCode, index: int, started: int) -> None:
        super().__init__(f"instruction {index}: {code.name}")
        self.code, self.index, self.started = code, index, started


class CambriconqAccelerator:
    """One accelerator and its memory; programs run one at a time, each to its end.

    Parameters
    ----------
    config : CambriconqConfig
        Must be what the accelerator was built with; checked against its registers.
    transport : Transport, optional
        By default a `Simulation`, with the next four, which count for nothing otherwise.
    seed : int
        Of the stalls and of what registers without a reset value hold at first.
    waves : bool
        Write a waveform to ``build/waves/``.
    stall : float
        Probability, 0 ≤ stall < 1, that in a cycle a channel of the memory or of the register bus is not ready or not valid.
    memory_size : int
        Bytes, a positive multiple of ``config.bus_bytes``, at most 4 GiB.
    timeout_cycles : int
        Clock cycles after which a program is given up.

    Raises RuntimeError unless ID, CONFIG0 and CONFIG1 are those of `config`, and ValueError for options out of range.
    """

    def __init__(
        self,
        config: CambriconqConfig,
        *,
        transport: Transport | None = None,
        seed: int = 0,
        waves: bool = False,
        stall: float = 0.0,
        memory_size: int = 1 << 24,
        timeout_cycles: int = 100_000_000,
    ) -> None:
        self._simulation = None
        if transport is None:
            transport = self._simulation = Simulation(config, seed=seed, waves=waves, stall=stall, memory_size=memory_size)
        self.config, self.transport, self.timeout_cycles = config, transport, timeout_cycles
        identify(transport, REGISTERS, ID, config_words(config), config.name)
        self._prepare()
        self._counted = dict.fromkeys(("CYCLES", "ARRAY_CYCLES", *(f"PHASE{n}" for n in range(PHASES))), 0)

    @property
    def memory_size(self) -> int:
        """Bytes of memory, from address 0; programs may touch them all, and nothing else."""
        return self.transport.memory_size

    def write_memory(self, address: int, data: bytes) -> None:
        """As of `Transport`."""
        self.transport.write_memory(address, data)

    def read_memory(self, address: int, size: int) -> bytes:
        """As of `Transport`."""
        return self.transport.read_memory(address, size)

    def run(self, entry: int) -> None:
        """Run the program at byte address `entry`, a multiple of 64, to its HALT.

        Raises `ProgramError` where the program is refused, and TimeoutError if it has not ended after `timeout_cycles`: then it is stopped
        (CONTROL.stop). Either way what was at work has ended, and another program may run; unless that did not end within as many cycles
        again, because memory does not answer, say: then only a reset helps.
        """
        self._write("CONTROL", REGISTERS["CONTROL"].pack(clear_counters=1))
        self._write("START", entry)
        late = False
        try:
            self.transport.wait(self.timeout_cycles)
        except TimeoutError:
            late = True
            self._write("CONTROL", REGISTERS["CONTROL"].pack(stop=1))
            self.transport.wait(self.timeout_cycles)
        self._write("IRQ_STATUS", REGISTERS["IRQ_STATUS"].mask)
        # The counters have 32 bits, enough for a program but not for a training.
        for name in self._counted:
            self._counted[name] += self._read(name)
        code = ErrorCode(REGISTERS["ERROR"].unpack(self._read("ERROR"))["code"])
        if code != ErrorCode.NONE:
            raise ProgramError(code, self._read("INDEX"), self._read("STARTED"))
        if late:
            index = self._read("INDEX")
            raise TimeoutError(
                f"the program at {entry:#x} ran for over {self.timeout_cycles:,} cycles; stopped before instruction {index}"
            )

    def flags(self) -> dict[str, int]:
        """The fields of STATUS: `busy`, and `nan`, `infinity` and `dropped`, which stay until `clear_flags` or a reset."""
        return REGISTERS["STATUS"].unpack(self._read("STATUS"))

    def clear_flags(self) -> None:
        """Clear `nan`, `infinity` and `dropped` of `flags`."""
        self._write("CONTROL", REGISTERS["CONTROL"].pack(clear_flags=1))

    def cycles(self) -> int:
        """Cycles in which a program ran, of all programs that have ended since this object was made, also across `reset`."""
        return self._counted["CYCLES"]

    def array_cycles(self) -> int:
        """Those in which the PE array took a line."""
        return self._counted["ARRAY_CYCLES"]

    def phase_cycles(self) -> list[int]:
        """Those in which the oldest instruction at work was of phase 0, 1, …; where none is at work, the last that was, at first phase 0.

        They add up to `cycles`.
        """
        return [self._counted[f"PHASE{n}"] for n in range(PHASES)]

    def close(self) -> None:
        """Free the simulation; a transport that was given stays as it is."""
        if self._simulation is not None:
            self._simulation.close()

    def __enter__(self) -> "CambriconqAccelerator":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def reset(self) -> None:
        """Reset the simulated accelerator; memory and the cycles counted so far stay. Raises RuntimeError if it is not simulated here."""
        if self._simulation is None:
            raise RuntimeError("only a simulated accelerator can be reset from here")
        self._simulation.reset()
        self._prepare()

    def _prepare(self) -> None:
        self._write("MEMORY_LAST", self.transport.memory_size - 1)
        self._write("CONTROL", REGISTERS["CONTROL"].pack(clear_flags=1, clear_counters=1))
        self._write("IRQ_STATUS", REGISTERS["IRQ_STATUS"].mask)
        self._write("IRQ_ENABLE", REGISTERS["IRQ_ENABLE"].mask)

    def _read(self, name: str) -> int:
        return self.transport.read_register(_OFFSET[name])

    def _write(self, name: str, value: int) -> None:
        self.transport.write_register(_OFFSET[name], value)
