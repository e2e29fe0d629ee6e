"""Golden twin of the command executor: what a frame does and how it is answered."""

from collections import Counter
from collections.abc import MutableSequence
from enum import IntEnum
from typing import Protocol

from .frame_sender import FRAME_BYTES, SLOTS, FrameSender

__all__ = ["COUNTS", "SEQUENCES", "VERSION", "CommandExecutor", "Opcode", "Outcome", "Port"]

VERSION, SEQUENCES = 1, 128
COUNTS = ("malformed", "wrong", "full", "repeated", "strange")
BEGINS = 0x80
CHECK_BYTES, TRAILER_BYTES = 4, 2


class Opcode(IntEnum):
    GREETING = 0
    READ_REGISTER = 1
    WRITE_REGISTER = 2
    READ_MEMORY = 3
    WRITE_MEMORY = 4
    WAIT = 5


class Outcome(IntEnum):
    DONE = 0
    UNKNOWN = 1
    TRUNCATED = 2
    OUTSIDE = 3
    REFUSED = 4
    LONG = 5


class Port(Protocol):
    """An accelerator and its memory. A register that cannot be had is a LookupError."""

    @property
    def memory(self) -> MutableSequence[int]: ...

    def read_register(self, offset: int) -> int: ...

    def write_register(self, offset: int, value: int) -> None: ...

    def wait(self, cycles: int) -> bool:
        """Whether the interrupt is up within so many cycles."""
        ...


class _Failure(Exception):
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


class _Frame:
    """What is left of a frame."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def __bool__(self) -> bool:
        return self.place < len(self.data)

    def take(self, size: int) -> bytes:
        piece = self.data[self.place : self.place + size]
        self.place += len(piece)
        if len(piece) < size:
            raise _Failure(Outcome.TRUNCATED)
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")


class CommandExecutor:
    """Frames in, answers out; `counts` also takes what the receiver dropped.

    Parameters
    ----------
    port : Port
    identity : bytes
        The greeting up to its counts.
    address_bits : int
        Offsets of registers from 2 ** `address_bits` on are refused.
    """

    def __init__(self, port: Port, identity: bytes, address_bits: int) -> None:
        self.port = port
        self.identity = identity
        self.address_bits = address_bits
        self.counts: Counter[str] = Counter()
        self.sender = FrameSender()
        self._expected = 0
        self._kept = 0

    def execute(self, frame: bytes) -> bytes | None:
        """The answer as it goes over the line; None if there is none."""
        begins, number = frame[0] >= BEGINS, frame[0] % BEGINS
        back = (self._expected - number) % SEQUENCES
        if begins or back == 0:
            self._expected = (number + 1) % SEQUENCES
            self._kept = 1 if begins else min(self._kept + 1, SLOTS)
            return self.sender.send(number % SLOTS, self._answer(frame))
        if back <= self._kept:
            self.counts["repeated"] += 1
            return self.sender.again(number % SLOTS)
        self.counts["strange"] += 1
        return None

    def _answer(self, data: bytes) -> bytes:
        frame, answer, done, outcome = _Frame(data), bytearray(), 0, Outcome.DONE
        answer += frame.take(1)
        try:
            while frame:
                self._command(frame, answer)
                done += 1
        except _Failure as failure:
            outcome = failure.outcome
        return bytes(answer) + bytes([done % 256, outcome])

    def _command(self, frame: _Frame, answer: bytearray) -> None:
        def room(size: int) -> None:
            if len(answer) + size + TRAILER_BYTES + CHECK_BYTES > FRAME_BYTES:
                raise _Failure(Outcome.LONG)

        code = frame.number(1)
        if code == Opcode.GREETING:
            room(len(self.identity) + len(COUNTS))
            answer += self.identity + bytes(self.counts[name] % 256 for name in COUNTS)
        elif code == Opcode.READ_REGISTER:
            offset = frame.number(1)
            room(4)
            answer += self._register(offset).to_bytes(4, "little")
        elif code == Opcode.WRITE_REGISTER:
            self._register(frame.number(1), frame.number(4))
        elif code == Opcode.READ_MEMORY:
            address, size = frame.number(4), frame.number(2)
            room(size)
            self._inside(address, size)
            answer += bytes(self.port.memory[address : address + size])
        elif code == Opcode.WRITE_MEMORY:
            address, size = frame.number(4), frame.number(2)
            self._inside(address, size)
            for place in range(address, address + size):
                self.port.memory[place] = frame.number(1)
        elif code == Opcode.WAIT:
            cycles = frame.number(3)
            room(1)
            answer.append(self.port.wait(cycles))
        else:
            raise _Failure(Outcome.UNKNOWN)

    def _register(self, offset: int, value: int | None = None) -> int:
        if offset >> self.address_bits:
            raise _Failure(Outcome.REFUSED)
        try:
            if value is None:
                return self.port.read_register(offset)
            self.port.write_register(offset, value)
        except LookupError:
            raise _Failure(Outcome.REFUSED) from None
        return 0

    def _inside(self, address: int, size: int) -> None:
        if address + size > len(self.port.memory):
            raise _Failure(Outcome.OUTSIDE)
