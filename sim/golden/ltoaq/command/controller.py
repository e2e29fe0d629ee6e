"""Golden twin of the controller, cycle by cycle: what it drives and counts, given what it is driven with."""

from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from nibblecore.hdl.config import LtoaqConfig

from . import descriptor_checker
from .errors import ErrorCode

__all__ = ["Controller", "Drives", "Inputs", "Outputs"]

CHECK_CYCLES = 21
DESCRIPTOR_BYTES, HEADER_BYTES = 128, 32


@dataclass(frozen=True)
class Inputs:
    """What one cycle brings. `address` is pushed if it is not None; `beat` is offered if it is not None."""

    address: int | None = None
    clear_error: bool = False
    clear_counters: bool = False
    soft_reset: bool = False
    window: tuple[int, int] = (0, 0xFFFF_FFFF)
    idle: bool = True
    malformed: bool = False
    run_overflow: bool = False
    summary: Mapping[str, int] = field(default_factory=dict)
    takes_read: bool = False
    beat: int | None = None
    takes_write: bool = False
    takes_beat: bool = False
    read_error: bool = False
    read_idle: bool = True
    write_error: bool = False
    write_idle: bool = True


class Drives(NamedTuple):
    """What the state alone decides. Commands are (address, beats)."""

    running: bool = True
    owns_bus: bool = True
    clear_bus: bool = False
    abandon: bool = False
    unit_reset: bool = False
    start: bool = False
    read_command: tuple[int, int] | None = None
    reads: bool = False
    write_command: tuple[int, int] | None = None
    write_beat: int | None = None
    last: bool = False


class Outputs(NamedTuple):
    """What the registers say in a cycle, and the two events that raise interrupts."""

    busy: bool
    queue_level: int
    done: int
    abandoned: int
    code: int
    sequence: int
    failed: bool
    command_done: bool


class _Abandoned(Exception):
    """The running command ends here, for this reason; NONE is a soft reset."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


_Cycles = Generator[Drives, Inputs, None]


class Controller:
    """One command after the other, as docs/ltoaq.md tells.

    Parameters
    ----------
    config : LtoaqConfig
    settle_cycles : int

    Members
    -------
    drives : Drives
        Of the cycle to come.
    descriptor, run_beats : bytes, list of int
        Of the running command, from its ``start`` on.
    """

    def __init__(self, config: LtoaqConfig, settle_cycles: int) -> None:
        self.config, self.settle_cycles = config, settle_cycles
        self.descriptor, self.run_beats = b"", [0, 0]
        self._queue: deque[int] = deque()
        self._done = self._abandoned = self._code = self._sequence = 0
        self._dropped = False
        self._met: ErrorCode | None = None
        self._cycles = self._commands()
        self.drives = next(self._cycles)

    def step(self, i: Inputs) -> Outputs:
        """One cycle."""
        drives, level = self.drives, len(self._queue)
        room = level < self.config.queue_depth
        self._met = None
        # Taking a command, and whatever ends one, happens in here.
        self.drives = self._cycles.send(i)
        failed = self._met not in (None, ErrorCode.NONE) and not self._dropped and not i.soft_reset
        overflow = i.address is not None and not room
        completed = drives.last and not self._dropped and not i.soft_reset
        outputs = Outputs(
            busy=drives.running or (level > 0 and not i.soft_reset),
            queue_level=level,
            done=self._done,
            abandoned=self._abandoned,
            code=self._code,
            sequence=self._sequence,
            failed=failed or overflow,
            command_done=completed and bool(descriptor_checker.fields(self.descriptor)["interrupt"]),
        )
        number = self._done + self._abandoned
        if i.clear_error:
            self._code = self._sequence = 0
        if self._code == 0 and failed:
            assert self._met is not None
            self._code, self._sequence = int(self._met), number % (1 << 16)
        elif self._code == 0 and overflow:
            self._code, self._sequence = int(ErrorCode.QUEUE_OVERFLOW), (number + level + drives.running) % (1 << 16)
        if i.address is not None and room:
            self._queue.append(i.address)
        self._done += completed
        self._abandoned += drives.last and not completed
        if i.soft_reset:
            self._abandoned += len(self._queue)
            self._queue.clear()
        if i.clear_counters:
            self._done = self._abandoned = 0
        self._dropped = drives.running and not drives.last and (self._dropped or i.soft_reset or failed)
        return outputs

    def _commands(self) -> _Cycles:
        while True:
            i = yield Drives(running=False, clear_bus=True)
            if not self._queue or i.soft_reset:
                continue
            try:
                yield from self._command(self._queue.popleft(), i.window)
            except _Abandoned as abandoned:
                self._met = abandoned.code
                i = yield Drives(abandon=True)
                while not (i.read_idle and i.write_idle):
                    i = yield Drives(abandon=True)
                yield Drives(abandon=True, unit_reset=True)
            yield Drives(last=True)

    def _command(self, address: int, window: tuple[int, int]) -> _Cycles:
        yield Drives()
        if address % HEADER_BYTES:
            raise _Abandoned(ErrorCode.MISALIGNED)
        if address < window[0] or address + DESCRIPTOR_BYTES - 1 > window[1]:
            raise _Abandoned(ErrorCode.OUT_OF_WINDOW)
        beats = DESCRIPTOR_BYTES // self.config.bus_bytes
        yield from self._ask(address, beats)
        words: list[int] = []
        for _ in range(beats):
            yield from self._read(words)
        raw = b"".join(word.to_bytes(self.config.bus_bytes, "little") for word in words)
        for _ in range(CHECK_CYCLES):
            yield Drives()
        code = descriptor_checker.check(raw, self.config, *window)
        if code != ErrorCode.NONE:
            raise _Abandoned(code)
        f = descriptor_checker.fields(raw)
        if f["opcode"] == descriptor_checker.GEMM:
            yield from self._headers(f)
        self.descriptor = raw
        yield Drives(unit_reset=True)
        yield Drives(start=True)
        yield from self._run()
        if f["opcode"] != descriptor_checker.GEMM or not f["raw_output"]:
            yield from self._summary(f)
        while True:
            i = yield Drives()
            if i.write_error:
                raise _Abandoned(ErrorCode.BUS_WRITE)
            if i.write_idle:
                return

    def _ask(self, address: int, beats: int) -> _Cycles:
        while not (yield Drives(read_command=(address, beats))).takes_read:
            pass

    def _read(self, words: list[int]) -> _Cycles:
        """One beat."""
        while True:
            i = yield Drives(reads=True)
            if i.read_error:
                raise _Abandoned(ErrorCode.BUS_READ)
            if i.beat is not None:
                words.append(i.beat)
                return

    def _headers(self, f: Mapping[str, int]) -> _Cycles:
        for name in "aw":
            yield from self._ask(f[f"{name}_header"], 1)
        words: list[int] = []
        for side, name in enumerate("aw"):
            yield from self._read(words)
            self.run_beats[side] = words[side] % (1 << 32)
            if not 1 <= self.run_beats[side] <= min(f[f"{name}_run_stride"], self.config.max_run_beats):
                raise _Abandoned(ErrorCode.MALFORMED_RUNS)

    def _run(self) -> _Cycles:
        settled = 0
        while settled < self.settle_cycles:
            i = yield Drives(owns_bus=False)
            for met, code in (
                (i.read_error, ErrorCode.BUS_READ),
                (i.write_error, ErrorCode.BUS_WRITE),
                (i.malformed, ErrorCode.MALFORMED_RUNS),
                (i.run_overflow, ErrorCode.RUN_OVERFLOW),
                (self._dropped, ErrorCode.NONE),
            ):
                if met:
                    raise _Abandoned(code)
            settled = settled + 1 if i.idle else 0

    def _summary(self, f: Mapping[str, int]) -> _Cycles:
        bus = self.config.bus_bytes
        i = yield Drives(write_command=(f["out_header"], HEADER_BYTES // bus))
        while not i.takes_write:
            i = yield Drives(write_command=(f["out_header"], HEADER_BYTES // bus))
        s = i.summary
        if f["opcode"] == descriptor_checker.THRESHOLD_GRAD:
            header = s["gradient"].to_bytes(8, "little").rjust(24, b"\0").ljust(HEADER_BYTES, b"\0")
        else:
            words = (s["run_beats"], s["x_max"], s["outliers"], s["saturations"], 0, 0, s["overflow"], 0)
            header = b"".join(word.to_bytes(4, "little") for word in words)
        for at in range(0, HEADER_BYTES, bus):
            while not (yield Drives(write_beat=int.from_bytes(header[at : at + bus], "little"))).takes_beat:
                pass
