"""The accelerator's Verilog under Verilator, as a transport for the driver.

Model and memory are one shared library (``simulation.cpp``); Python enters it for a register access, a copy or a wait, never
for a clock cycle. Libraries are kept (`nibblecore.sim.kept`) under a hash of everything they are made from.
"""

import ctypes
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.hdl.emit.emit import emit_verilog
from nibblecore.sim.kept import cache_folder
from nibblecore.sim.machines import Config, accelerator, full_name
from numpy.typing import NDArray

from .model import LIBRARIES, SimulationError, kept_verilog, library
from .transport import BusError

__all__ = ["Simulation", "SimulationError", "build"]

_HARNESS = [Path(__file__).with_name("simulation.cpp"), *sorted(Path(__file__).parent.glob("fst/*.h"))]

# Cycles in one call of the library: short enough for Ctrl-C to be answered, long enough to cost nothing.
_CHUNK = 20_000


class Simulation:
    """An accelerator, its AXI4 memory and its AXI4-Lite manager, cycle by cycle; a `Transport`.

    The memory lies at address 0; what is outside is answered DECERR, what is inside OKAY unless `answer` says otherwise. It takes up to
    16 bursts each way and answers in order, one beat a cycle in each direction. A write becomes visible when its response is sent, not
    before. Bursts that break the rules of AXI4 (payload not held, wrong size or ``wlast``, a 4 KiB boundary crossed) raise
    `SimulationError`. Registers without a reset value start at random.

    Parameters
    ----------
    config : LtoaqConfig or CambriconqConfig
        An engine beside the memory finds its banks' rows in the same memory, and their timing is checked; reading or writing over the
        bus while a row is open is an error.
    waves : bool or path
        Write a waveform in FST: to this file, or ``build/waves/<config>.fst``, below the cache where there is no such folder.
    latency : int
        Cycles from a read address to its first beat, and from the last write beat to the response; at least 1.
    stall : float
        Probability, 0 ≤ stall < 1, that in a cycle a channel of the memory or the manager is not ready or not valid.
    seed : int
        Of the stalls and of the registers' initial contents.
    memory_size : int
        Bytes, a multiple of ``config.bus_bytes``.
    component : Component, optional
        Another design with the accelerator's ports, instead of the accelerator of this configuration.

    Members
    -------
    memory : numpy array of uint8
        The memory itself, not a copy; invalid after `close`.
    cycles : int
        Clock cycles since the beginning, those of register accesses and resets included.
    read_beats, write_beats : int
        Data beats that crossed the memory bus.
    """

    def __init__(
        self,
        config: Config,
        *,
        waves: bool | str | Path = False,
        latency: int = 20,
        stall: float = 0.0,
        seed: int = 0,
        memory_size: int = 1 << 26,
        component: Any = None,
    ) -> None:
        if latency < 1:
            raise ValueError(f"latency must be at least 1 cycle, not {latency}")
        if not 0 <= stall < 1:
            raise ValueError(f"stall must be a probability below 1, not {stall}")
        if not 0 < memory_size <= 1 << 32 or memory_size % config.bus_bytes:
            raise ValueError(f"memory_size must be a positive multiple of {config.bus_bytes} up to 4 GiB, not {memory_size}")
        self._handle: int | None = None
        self._bus_bytes = config.bus_bytes
        self._library = _load(build(config, component=component, waves=bool(waves)))
        self.waves = _waves_file(config, waves) if waves else None
        target = os.fsencode(self.waves) if self.waves else None
        self._handle = self._library.simulation_create(memory_size, latency, stall, seed & (1 << 64) - 1, target)
        if not self._handle:
            raise MemoryError(f"no room for a simulation with {memory_size} bytes of memory")
        address = self._library.simulation_memory(self._handle)
        self.memory: NDArray[np.uint8] = np.ctypeslib.as_array(address, (memory_size,))
        self.reset()

    @property
    def memory_size(self) -> int:
        return len(self.memory)

    @property
    def cycles(self) -> int:
        return self._library.simulation_cycles(self._open)

    @property
    def read_beats(self) -> int:
        return self._library.simulation_read_beats(self._open)

    @property
    def write_beats(self) -> int:
        return self._library.simulation_write_beats(self._open)

    def reset(self) -> None:
        """Reset the accelerator; the memory keeps its contents, bursts under way are forgotten."""
        self._checked(self._library.simulation_reset(self._open))

    def read_register(self, offset: int) -> int:
        """The 32-bit register at byte `offset`."""
        data = ctypes.c_uint32()
        response = self._checked(self._library.simulation_register_read(self._open, offset, ctypes.byref(data)))
        if response:
            raise BusError(f"reading register {offset:#x} was answered with response {response}")
        return data.value

    def write_register(self, offset: int, value: int) -> None:
        if not 0 <= value < 1 << 32:
            raise ValueError(f"a register holds 32 bits, not {value:#x}")
        response = self._checked(self._library.simulation_register_write(self._open, offset, value))
        if response:
            raise BusError(f"writing register {offset:#x} was answered with response {response}")

    def read_memory(self, address: int, size: int) -> bytes:
        self._check_range(address, size)
        return self.memory[address : address + size].tobytes()

    def write_memory(self, address: int, data: bytes) -> None:
        source = np.frombuffer(data, np.uint8)
        self._check_range(address, len(source))
        self.memory[address : address + len(source)] = source

    def answer(self, address: int, response: int) -> None:
        """From now on the memory answers the beat at `address` with `response`, 0 to 3 as in AXI4, and carries it out all the same.

        The answer to a write is the highest of its beats'. `address` is a multiple of the bus's width.
        """
        if not 0 <= response <= 3:
            raise ValueError(f"a response is 0 to 3, not {response}")
        if address % self._bus_bytes or not 0 <= address < self.memory_size:
            raise ValueError(
                f"{address:#x} is no address of a beat of {self._bus_bytes} bytes in a memory of {self.memory_size:#x} bytes"
            )
        self._library.simulation_answer(self._open, address, response)

    def run(self, cycles: int) -> None:
        """Let `cycles` clock cycles pass."""
        for count in _chunks(cycles):
            self._checked(self._library.simulation_run(self._open, count, 0))

    def wait(self, timeout_cycles: int) -> None:
        """Return when the interrupt is up; raise TimeoutError if `timeout_cycles` clock cycles pass without one."""
        up = self._checked(self._library.simulation_run(self._open, 0, 1))
        for count in _chunks(timeout_cycles):
            if up:
                break
            up = self._checked(self._library.simulation_run(self._open, count, 1))
        if not up:
            raise TimeoutError(f"no interrupt within {timeout_cycles} cycles")

    def close(self) -> None:
        """Free the model and its memory, and complete the waveform."""
        if self._handle:
            self._library.simulation_destroy(self._handle)
            self._handle = None
            self.memory = np.empty(0, np.uint8)

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    @property
    def _open(self) -> int:
        if self._handle is None:
            raise SimulationError("the simulation is closed")
        return self._handle

    def _checked(self, result: int) -> int:
        if result < 0:
            raise SimulationError(self._library.simulation_failure(self._open).decode())
        return result

    def _check_range(self, address: int, size: int) -> None:
        if address < 0 or size < 0 or address + size > self.memory_size:
            raise ValueError(f"bytes {address:#x}..{address + size:#x} are not all in a memory of {self.memory_size:#x} bytes")


def build(config: Config, *, component: Any = None, waves: bool = False) -> Path:
    """The shared library of a configuration, built unless it lies in the cache; a half-built one is never there."""
    if component is None:
        name, verilog = full_name(config), _accelerator_verilog(config)
    else:
        name = f"{full_name(config)}-{re.sub(r'[^a-z0-9]+', '_', type(component).__name__.lower())}"
        verilog = emit_verilog(component, "top")
    return library(f"the simulation of {name}", name, verilog, _HARNESS, *_flags(config, waves))


def _accelerator_verilog(config: Config) -> str:
    return kept_verilog(full_name(config), json.dumps(asdict(config)), lambda: accelerator(config))


def _flags(config: Config, waves: bool) -> tuple[str, list[str]]:
    """For the compiler, and for Verilator."""
    flags, trace = f"-DBUS_BYTES={config.bus_bytes}", []
    if isinstance(config, CambriconqConfig) and config.dram:
        flags = " ".join([flags, *(f"-DDRAM_{name.upper()}={value}" for name, value in asdict(config.dram).items())])
    if waves:
        # Verilator would link -llz4 and -lz; the headers in fst/ stand in for both.
        flags, trace = f"{flags} -DWAVES -I..", ["--trace-fst", "--trace-structs", "-MAKEFLAGS", f"LDLIBS='{LIBRARIES} -pthread'"]
    return flags, trace


def _waves_file(config: Config, waves: bool | str | Path) -> Path:
    if not isinstance(waves, bool):
        return Path(waves)
    file = cache_folder() / "waves" / f"{full_name(config)}.fst"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


@cache
def _load(library: Path) -> ctypes.CDLL:
    handle, number, whole = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "create": (handle, [number, number, ctypes.c_double, number, ctypes.c_char_p]),
        "destroy": (None, [handle]),
        "memory": (ctypes.POINTER(ctypes.c_uint8), [handle]),
        "failure": (ctypes.c_char_p, [handle]),
        "cycles": (number, [handle]),
        "read_beats": (number, [handle]),
        "write_beats": (number, [handle]),
        "answer": (None, [handle, number, whole]),
        "reset": (whole, [handle]),
        "register_read": (whole, [handle, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)]),
        "register_write": (whole, [handle, ctypes.c_uint32, ctypes.c_uint32]),
        "run": (whole, [handle, number, whole]),
    }
    loaded = ctypes.CDLL(str(library))
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, f"simulation_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


def _chunks(cycles: int) -> Iterator[int]:
    while cycles > 0:
        yield min(cycles, _CHUNK)
        cycles -= _CHUNK
