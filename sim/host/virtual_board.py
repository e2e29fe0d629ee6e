"""A board without a board: its design under Verilator, at a line or at a pseudo-terminal."""

import ctypes
import os
import select
import sys
import tty
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nibblecore.hdl.boards.board import Board
from nibblecore.hdl.boards.targets import TARGETS, Target
from nibblecore.sim.machines import Config, full_name
from nibblecore.sim.refusal import Refusal

from .model import kept_verilog, library

__all__ = ["VirtualBoard", "main", "serve"]

_HARNESS = [Path(__file__).with_name("virtual_board.cpp")]

_CLOCK_HZ = 250_000
"""What a board says whose line brings bytes: about what a simulation manages, so that a host waits about as long as it means to."""

_CHUNK = 20_000
"""Cycles in one call of the library: short enough for Ctrl-C to be answered, long enough to cost nothing."""

_POLL_CYCLES = 500
"""Between two looks at the terminal: a host that waits for an answer before it speaks again waits for these, too."""

_ROOM = 4096
_UNHEARD_BYTES = 1 << 16
"""Kept for a host that does not listen."""

_QUIET_CYCLES = 1 << 25
"""Longer than a WAIT can be: when nothing was said for so long, the clock may stand until something is."""


class VirtualBoard:
    """The design of a board, cycle by cycle; a `Line`. Registers without a reset value start at random.

    Parameters
    ----------
    config : LtoaqConfig or CambriconqConfig
    target : Target
    memory_bytes : int or None
        Instead of the board's.
    wires : bool
        Have bytes go over the board's two wires, bit by bit, at its clock and rate; otherwise the line brings bytes, several times faster.
    seed : int
        Of the registers' initial contents.

    Members
    -------
    cycles : int
    busy, error : bool
        The lamps.
    """

    def __init__(
        self, config: Config, target: Target, *, memory_bytes: int | None = None, wires: bool = False, seed: int = 0
    ) -> None:
        if reason := target.refusal(config):
            raise Refusal("config", reason)
        self._library = _load(_build(config, target, memory_bytes or target.memory_bytes, wires))
        self._handle: int | None = self._library.board_create(seed & (1 << 64) - 1)
        self._coming = bytearray()
        self._output = (ctypes.c_uint8 * _ROOM)()

    @property
    def cycles(self) -> int:
        return self._library.board_cycles(self._open)

    @property
    def busy(self) -> bool:
        return bool(self._library.board_lamp(self._open, 0))

    @property
    def error(self) -> bool:
        return bool(self._library.board_lamp(self._open, 1))

    @property
    def waiting(self) -> int:
        """Bytes that were written and are not on the line yet."""
        return len(self._coming)

    def write(self, data: bytes) -> None:
        self._coming += data

    def read(self, cycles: int = _CHUNK) -> bytes:
        """As of `Line`, after so many cycles at most."""
        taken, given = ctypes.c_uint64(), ctypes.c_uint64()
        coming = bytes(self._coming[:_ROOM])
        self._library.board_run(
            self._open, cycles, coming, len(coming), self._output, _ROOM, ctypes.byref(taken), ctypes.byref(given)
        )
        del self._coming[: taken.value]
        return bytes(self._output[: given.value])

    def close(self) -> None:
        """Free the model."""
        if self._handle is not None:
            self._library.board_destroy(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _open(self) -> int:
        if self._handle is None:
            raise ValueError("the board is closed")
        return self._handle


def _build(config: Config, target: Target, memory_bytes: int, wires: bool) -> Path:
    clock_hz, baud = (target.clock_hz, target.baud) if wires else (_CLOCK_HZ, None)
    # The chip's clock is the board's, whatever a host is told of the simulation's.
    chip, sdram = target.sdram, target.timed_sdram
    name = f"board_{full_name(config)}_{memory_bytes // 1024}k" + "_sdram" * bool(chip) + f"_{clock_hz}_{baud}" * wires
    try:
        board = Board(config, memory_bytes=memory_bytes, clock_hz=clock_hz, baud=baud, sdram=sdram)
    except ValueError as error:
        raise Refusal("memory_bytes", str(error)) from None
    arguments = repr((config, memory_bytes, clock_hz, baud, sdram))
    flags = f"-DCLOCK_HZ={clock_hz} -DBAUD={baud}" if baud else ""
    if chip:
        flags += f" -DSDRAM_BANK_BITS={chip.bank_bits} -DSDRAM_ROW_BITS={chip.row_bits} -DSDRAM_COLUMN_BITS={chip.column_bits}"
    return library(
        f"the virtual board of {full_name(config)}", name, kept_verilog(name, arguments, lambda: board), _HARNESS, flags.strip()
    )


@cache
def _load(path: Path) -> ctypes.CDLL:
    handle, number, sizes = ctypes.c_void_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint64)
    room = ctypes.POINTER(ctypes.c_uint8)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "create": (handle, [number]),
        "destroy": (None, [handle]),
        "cycles": (number, [handle]),
        "lamp": (ctypes.c_int, [handle, ctypes.c_int]),
        "run": (None, [handle, number, ctypes.c_char_p, number, room, number, sizes, sizes]),
    }
    loaded = ctypes.CDLL(str(path))
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, f"board_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


def serve(board: VirtualBoard, terminal: int) -> None:
    """What a host writes to the file `terminal` goes to the board, and what the board says comes back, for ever.

    The board waits for no one: of what a host does not read, the oldest is lost.
    """
    os.set_blocking(terminal, False)
    unheard = bytearray()
    spoken = board.cycles
    while True:
        rests = board.cycles - spoken > _QUIET_CYCLES
        readable, writable, _ = select.select(
            [terminal] if board.waiting < _ROOM else [], [terminal] if unheard else [], [], None if rests else 0
        )
        if readable:
            board.write(os.read(terminal, _ROOM))
        said = board.read(_POLL_CYCLES)
        if readable or said:
            spoken = board.cycles
        unheard += said
        del unheard[:-_UNHEARD_BYTES]
        if writable and unheard:
            with suppress(BlockingIOError):
                del unheard[: os.write(terminal, unheard)]


def main(*, board: str, config: Config, memory_bytes: int | None, wires: bool, seed: int) -> int:
    """``nibblecore virtual-board``."""
    with VirtualBoard(config, TARGETS[board], memory_bytes=memory_bytes, wires=wires, seed=seed) as virtual:
        ours, theirs = os.openpty()
        try:
            # Raw on this side too, and open for as long as the board is: a host may come and go.
            tty.setraw(ours)
            tty.setraw(theirs)
            port = os.ttyname(theirs)
            print(f"{board} with {full_name(config)} at {port}", flush=True)
            print(
                f"in another terminal: make train TRANSPORT=serial PORT={port}; Ctrl-C ends the board", file=sys.stderr, flush=True
            )
            serve(virtual, ours)
        except KeyboardInterrupt:
            print(f"\n{virtual.cycles:,} cycles", file=sys.stderr)
        finally:
            os.close(ours)
            os.close(theirs)
    return 0
