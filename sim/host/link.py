"""A board at the end of a serial line, as a transport for the driver: the host's side of docs/link.md."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, zip_longest
from types import TracebackType
from typing import Any, Protocol, Self

from nibblecore.hdl.boards.targets import build_of
from nibblecore.hdl.link.protocol import COUNTS, FRAME_BYTES, SEQUENCES, SLOTS, VERSION, Opcode, Outcome
from nibblecore.sim.formats.frames import CHECK_BYTES, DELIMITER, FrameError, unwrap, wrap
from nibblecore.sim.machines import MACHINES, Config, full_name
from nibblecore.sim.progress import doing

from .transport import BusError

__all__ = ["Board", "Line", "LinkError", "LinkTransport", "SerialLine", "reach"]

_BEGINS = 0x80
_TRAILER_BYTES = 2
_PAYLOAD_BYTES = FRAME_BYTES - CHECK_BYTES - 1
"""Of commands in a frame, behind its number."""
_ANSWER_BYTES = FRAME_BYTES - CHECK_BYTES - 1 - _TRAILER_BYTES
_WRITE_BYTES = (_PAYLOAD_BYTES - 7) & ~3
_READ_BYTES = _ANSWER_BYTES & ~3
_WAIT_SECONDS = 0.1
"""Longest WAIT: the link answers nothing else meanwhile."""
_VANISHED_SECONDS = 0.05
_LINE_BITS = 10
"""Of a byte."""
_TRIES = 10
_POSTED_BYTES = 1 << 16
"""Of writes to memory that wait for the next exchange."""


class LinkError(ConnectionError):
    """The board does not answer, or answers what it should not."""


class Line(Protocol):
    """A line that is open."""

    def write(self, data: bytes) -> None: ...

    def read(self) -> bytes:
        """What has come, as soon as there is something; nothing if nothing comes for a while, well below a second."""
        ...

    def close(self) -> None: ...


class SerialLine:
    """A serial port; a `Line`. Needs pyserial.

    A port that vanishes, as when its cable is pulled, is opened again as soon as it is there; what is written meanwhile is lost.

    Parameters
    ----------
    port : str
        ``"/dev/ttyUSB0"``.
    baud : int
        The rate that the board was built with.

    Raises LinkError if there is no such port, or it cannot be opened.
    """

    def __init__(self, port: str, baud: int) -> None:
        self._port, self._baud = port, baud
        self._serial = self._opened()

    def write(self, data: bytes) -> None:
        with suppress(OSError, LinkError):
            self._there().write(data)

    def read(self) -> bytes:
        try:
            serial = self._there()
            return serial.read(max(1, serial.in_waiting))
        except (OSError, LinkError):
            self.close()
            time.sleep(_VANISHED_SECONDS)
            return b""

    def close(self) -> None:
        if self._serial is not None:
            self._serial.close()
            self._serial = None

    def _there(self) -> Any:
        if self._serial is None:
            self._serial = self._opened()
        return self._serial

    def _opened(self) -> Any:
        try:
            import serial
        except ModuleNotFoundError:
            raise LinkError("a serial line needs pyserial: pip install 'nibblecore[serial]'") from None
        try:
            return serial.Serial(self._port, self._baud, timeout=0.05, write_timeout=5, exclusive=True)
        except (OSError, ValueError) as error:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            raise LinkError(f"{self._port} cannot be opened: {why}") from None


@dataclass(frozen=True)
class Board:
    """What a board says of itself, and how often what went wrong since its reset (modulo 256)."""

    memory_bytes: int
    clock_hz: int
    build: bytes
    counts: dict[str, int]


@dataclass(frozen=True)
class _Command:
    data: bytes
    answer_bytes: int
    words: str

    @property
    def span(self) -> range:
        """Of memory, what a READ_MEMORY or a WRITE_MEMORY touches."""
        address, size = int.from_bytes(self.data[1:5], "little"), int.from_bytes(self.data[5:7], "little")
        return range(address, address + size)


@dataclass(eq=False)
class _Later:
    """A read that waits for writes whose direction it does not use."""

    commands: deque[_Command]
    found: bytes = b""

    def touches(self, span: range) -> bool:
        return any(command.span.start < span.stop and span.start < command.span.stop for command in self.commands)


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


class LinkTransport:
    """Registers, memory and interrupt of an accelerator on a board; a `Transport`. As a context manager it closes the line.

    A frame that is not answered, or whose answer was damaged, is sent again with all those after it; the board carries out none twice.
    What is written to memory goes onto the line with the next access that has an answer, or when it has become much, or with `close`; what
    is read later, beside it, as the line carries both directions at once.

    Parameters
    ----------
    line : Line
    timeout : float
        Seconds without an answer after which frames are sent again; it should cover the way there and back of four long frames.

    Members
    -------
    board : Board
        As of the greeting.
    sent, received : int
        Bytes on the line.
    resent : int
        Frames that were sent again.
    exchanges : int
        Times that the host waited for the board's answer.

    Raises LinkError if there is no board, or one with another protocol.
    """

    def __init__(self, line: Line, *, timeout: float = 0.5) -> None:
        self.timeout = timeout
        self.sent = self.received = self.resent = self.exchanges = 0
        self._line = line
        self._input = bytearray()
        self._next = 0
        self._posted: list[_Command] = []
        self._later: deque[_Later] = deque()
        # A delimiter ends whatever the board holds of a line that was cut.
        self._write(DELIMITER)
        self._next = _BEGINS
        self.board = self.greet()

    @property
    def memory_size(self) -> int:
        return self.board.memory_bytes

    def greet(self) -> Board:
        """Ask the board who it is and what it has counted."""
        (answer,) = self._exchange([_Command(bytes([Opcode.GREETING]), 22 + len(COUNTS), "the greeting")])
        if answer[0] != VERSION:
            raise LinkError(f"the board speaks version {answer[0]} of the link, this driver version {VERSION}")
        sizes = (answer[1], int.from_bytes(answer[2:4], "little"))
        if sizes != (SLOTS, FRAME_BYTES):
            raise LinkError(f"the board takes {sizes[0]} frames of {sizes[1]} bytes, this driver sends {SLOTS} of {FRAME_BYTES}")
        memory_bytes, clock_hz = (int.from_bytes(answer[at : at + 4], "little") for at in (6, 10))
        return Board(memory_bytes, clock_hz, answer[14:22], dict(zip(COUNTS, answer[22:], strict=True)))

    def read_register(self, offset: int) -> int:
        return self.perform(("read_register", offset))[0]

    def write_register(self, offset: int, value: int) -> None:
        self.perform(("write_register", offset, value))

    def read_memory(self, address: int, size: int) -> bytes:
        return self.perform(("read_memory", address, size))[0]

    def read_later(self, address: int, size: int) -> Callable[[], bytes]:
        """As of `transport.read_later`."""
        later = _Later(deque(self._commands("read_memory", address, size)))
        if any(later.touches(write.span) for write in self._posted):
            self.flush()
        if later.commands:
            self._later.append(later)

        def taken() -> bytes:
            if later.commands:
                self._exchange([], wanted=later)
            return later.found

        return taken

    def write_memory(self, address: int, data: bytes) -> None:
        self._posted += self._commands("write_memory", address, data)
        if sum(len(command.data) for command in self._posted) > _POSTED_BYTES:
            self.flush()

    def wait(self, timeout_cycles: int) -> None:
        self.perform(("wait", timeout_cycles))

    def perform(self, *calls: tuple[Any, ...]) -> list[Any]:
        """As of `transport.perform`, in one exchange, or where the interrupt keeps the board waiting in several."""
        names = [name for name, *_ in calls]
        if "wait" not in names:
            return self._made(calls)
        place = names.index("wait")
        if not all(name.startswith("read") for name in names[place + 1 :]):
            raise ValueError(f"behind a wait come reads only, not {', '.join(names)}")
        longest = max(1, min(int(self.board.clock_hz * _WAIT_SECONDS), (1 << 24) - 1))
        left = timeout_cycles = calls[place][1]
        before: list[Any] = []
        ahead = calls[:place]
        while True:
            cycles = min(left, longest)
            answers = self._made((*ahead, ("wait", cycles), *calls[place + 1 :]))
            before += answers[: len(ahead)]
            up, *behind = answers[len(ahead) :]
            if up:
                return [*before, None, *behind]
            ahead = ()
            left -= cycles
            if left <= 0:
                raise TimeoutError(f"no interrupt within {timeout_cycles} cycles")

    def disturb(self, data: bytes) -> None:
        """Onto the line, as it is: what is no frame of this host."""
        self.flush()
        self._write(data)

    def flush(self) -> None:
        """Have done what is written to memory."""
        self._exchange([])

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self._line.close()

    def _made(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What the calls return; of a wait, whether the interrupt is up."""
        commands = [self._commands(*call) for call in calls]
        answers = iter(self._exchange([command for part in commands for command in part]))
        results: list[Any] = []
        for (name, *_), part in zip(calls, commands, strict=True):
            answer = b"".join(islice(answers, len(part)))
            kinds = {"read_register": int.from_bytes(answer, "little"), "read_memory": answer, "wait": answer != b"\0"}
            results.append(kinds.get(name))
        return results

    def _commands(self, name: str, *arguments: Any) -> list[_Command]:
        """Of a call of `Transport`'s method of that name."""
        if name == "wait":
            (cycles,) = arguments
            return [_Command(bytes([Opcode.WAIT]) + _number(cycles, 3), 1, "waiting for the interrupt")]
        if name == "read_memory":
            address, size = arguments
            self._check_range(address, size)
            pieces = [(at, min(_READ_BYTES, address + size - at)) for at in range(address, address + size, _READ_BYTES)]
            return [
                _Command(bytes([Opcode.READ_MEMORY]) + _number(at, 4) + _number(count, 2), count, f"reading memory at {at:#x}")
                for at, count in pieces
            ]
        if name == "write_memory":
            address, data = arguments
            self._check_range(address, len(data))
            for later in [later for later in self._later if later.touches(range(address, address + len(data)))]:
                self._exchange([], wanted=later)
            return [
                _Command(
                    bytes([Opcode.WRITE_MEMORY]) + _number(address + at, 4) + _number(len(piece), 2) + piece,
                    0,
                    f"writing memory at {address + at:#x}",
                )
                for at in range(0, len(data), _WRITE_BYTES)
                for piece in [data[at : at + _WRITE_BYTES]]
            ]
        offset, *values = arguments
        if offset % 4 or not 0 <= offset < 256:
            raise BusError(f"there is no register at {offset:#x}")
        if name == "read_register":
            return [_Command(bytes([Opcode.READ_REGISTER, offset]), 4, f"reading register {offset:#x}")]
        (value,) = values
        if not 0 <= value < 1 << 32:
            raise ValueError(f"a register holds 32 bits, not {value:#x}")
        return [_Command(bytes([Opcode.WRITE_REGISTER, offset]) + _number(value, 4), 0, f"writing register {offset:#x}")]

    def _beside(self, size: int, wanted: _Later | None) -> list[tuple[_Later, _Command]]:
        """Of what is to be read later all of `wanted`, and as much of the others as is answered while `size` bytes are written."""
        found = [(wanted, command) for command in wanted.commands] if wanted else []
        size -= sum(command.answer_bytes for _, command in found)
        for later in self._later:
            for command in later.commands if later is not wanted else ():
                if command.answer_bytes > size:
                    return found
                found.append((later, command))
                size -= command.answer_bytes
        return found

    def _exchange(self, commands: Sequence[_Command], wanted: _Later | None = None) -> list[bytes]:
        """Have commands carried out in their order, behind what was posted; what each answers."""
        posted, self._posted = self._posted, []
        beside = self._beside(sum(len(command.data) for command in posted), wanted)
        # One of each in turn, so that neither direction of the line rests while there is something for both.
        ahead = [one for pair in zip_longest(beside, ((None, write) for write in posted)) for one in pair if one]
        answers = self._carried_out([*(command for _, command in ahead), *commands])
        for (later, _), answer in zip(ahead, answers, strict=False):
            if later:
                later.commands.popleft()
                later.found += answer
        self._later = deque(later for later in self._later if later.commands)
        return answers[len(ahead) :]

    def _carried_out(self, commands: Sequence[_Command]) -> list[bytes]:
        """What each of the commands answers."""
        waiting = deque(self._frames(commands))
        self.exchanges += bool(waiting)
        under_way: deque[tuple[bytes, list[_Command]]] = deque()
        answers: list[bytes] = []
        tries = 0
        while waiting or under_way:
            while waiting and len(under_way) < SLOTS:
                part = waiting.popleft()
                frame = bytes([self._next]) + b"".join(command.data for command in part)
                self._next = (self._next + 1) % SEQUENCES
                under_way.append((frame, part))
                self._write(wrap(frame))
            frame, part = under_way[0]
            answer = self._receive(frame[0])
            if answer is not None:
                under_way.popleft()
                tries = 0
                answers += self._answers(answer, part)
                continue
            tries += 1
            if tries == _TRIES:
                raise LinkError(
                    f"no answer within {_TRIES} × {self.timeout} s: is the board on, programmed, and at this rate of the line?"
                )
            self.resent += len(under_way)
            self._write(DELIMITER + b"".join(wrap(again) for again, _ in under_way))
        return answers

    def _frames(self, commands: Iterable[_Command]) -> Iterable[list[_Command]]:
        """Commands packed into as few frames as take them and their answers."""
        part: list[_Command] = []
        size = answer_bytes = 0
        for command in commands:
            if part and (size + len(command.data) > _PAYLOAD_BYTES or answer_bytes + command.answer_bytes > _ANSWER_BYTES):
                yield part
                part, size, answer_bytes = [], 0, 0
            part.append(command)
            size += len(command.data)
            answer_bytes += command.answer_bytes
        if part:
            yield part

    def _answers(self, answer: bytes, part: list[_Command]) -> list[bytes]:
        """What each command answered. Raises an exception for the first that was not carried out."""
        done, outcome = answer[-2:]
        if outcome == Outcome.REFUSED:
            raise BusError(f"{part[done].words} was answered with an error")
        if outcome:
            why = Outcome(outcome).meaning if outcome in list(Outcome) else f"outcome {outcome}"
            raise LinkError(f"the board did not carry out {part[done].words}: {why}")
        at, found = 1, []
        for command in part:
            found.append(answer[at : at + command.answer_bytes])
            at += command.answer_bytes
        if done != len(part) or at != len(answer) - _TRAILER_BYTES:
            raise LinkError(f"the board answered {len(part)} commands with {done}, and {len(answer)} bytes")
        return found

    def _receive(self, first: int) -> bytes | None:
        """The answer that begins with byte `first`; None if none came in time. Others, and what is no frame, are passed over."""
        begun = time.monotonic()
        while True:
            while (end := self._input.find(DELIMITER)) >= 0:
                line = bytes(self._input[:end])
                del self._input[: end + 1]
                try:
                    answer = unwrap(line)
                except FrameError:
                    continue
                if answer[0] == first and len(answer) > _TRAILER_BYTES:
                    return answer
            data = self._line.read()
            self.received += len(data)
            self._input += data
            # What has come may be the answer; a line that never rests brings none.
            if time.monotonic() - begun > self.timeout * (_TRIES if data else 1):
                return None

    def _write(self, data: bytes) -> None:
        self._line.write(data)
        self.sent += len(data)

    def _check_range(self, address: int, size: int) -> None:
        if address < 0 or size < 0 or address + size > self.memory_size:
            raise ValueError(f"bytes {address:#x}..{address + size:#x} are not all in a memory of {self.memory_size:#x} bytes")


def reach(port: str, baud: int, config: Config) -> LinkTransport:
    """The board at a serial port. Raises LinkError if there is none, or one that was built from another configuration."""
    there_and_back = 2 * SLOTS * (FRAME_BYTES + 4) * _LINE_BITS / baud
    line = SerialLine(port, baud)
    try:
        with doing(f"asking the board at {port}"):
            transport = LinkTransport(line, timeout=max(0.5, 2 * there_and_back))
    except LinkError as error:
        line.close()
        raise LinkError(f"{port}: {error}") from None
    built = transport.board.build
    if built != build_of(config):
        known = {build_of(other): full_name(other) for presets in MACHINES.values() for other in presets.values()}
        transport.close()
        there = known.get(built, f"what this nibblecore does not know ({built.hex()})")
        raise LinkError(f"the board at {port} was built from {there}, not from {full_name(config)}")
    return transport
