"""Commands of the link and what becomes of them, in plain Python: the RTL, the host's side and docs/link.md all read this."""

from enum import IntEnum

__all__ = ["COUNTS", "FRAME_BYTES", "SEQUENCES", "SLOTS", "VERSION", "Opcode", "Outcome"]

VERSION = 1
"""Of the protocol, in the greeting."""

SEQUENCES = 128
"""Frames are numbered modulo this."""

FRAME_BYTES = 508
"""Of the longest frame, its CRC included."""

SLOTS = 4
"""Frames whose answers are kept, so frames that may be under way."""

COUNTS = ("malformed", "wrong", "full", "repeated", "strange")
"""Of the greeting, 8 bits each, modulo 256: frames dropped (`FrameReceiver`), frames answered again, frames out of their turn."""


class Opcode(IntEnum):
    """First byte of a command.

    Members
    -------
    operands : tuple of (str, int)
        What follows, and in how many bytes, least significant byte first.
    answer : str
        What it answers.
    """

    operands: tuple[tuple[str, int], ...]
    answer: str

    def __new__(cls, value: int, operands: tuple[tuple[str, int], ...] = (), answer: str = "") -> "Opcode":
        code = int.__new__(cls, value)
        code._value_, code.operands, code.answer = value, operands, answer
        return code

    GREETING = 0, (), "who is there, below"
    READ_REGISTER = 1, (("offset", 1),), "the register, 4 bytes"
    WRITE_REGISTER = 2, (("offset", 1), ("value", 4)), "nothing"
    READ_MEMORY = 3, (("address", 4), ("size", 2)), "so many bytes"
    WRITE_MEMORY = 4, (("address", 4), ("size", 2)), "nothing; so many bytes follow the operands"
    WAIT = 5, (("cycles", 3),), "the interrupt, 1 byte: 1 as soon as it is up, 0 if so many cycles have passed without"


class Outcome(IntEnum):
    """What became of a frame.

    Members
    -------
    meaning : str
    """

    meaning: str

    def __new__(cls, value: int, meaning: str = "") -> "Outcome":
        code = int.__new__(cls, value)
        code._value_, code.meaning = value, meaning
        return code

    DONE = 0, "every command was carried out"
    UNKNOWN = 1, "there is no such opcode"
    TRUNCATED = 2, "the frame ends within the command"
    OUTSIDE = 3, "the command would reach beyond the memory"
    REFUSED = 4, "the accelerator answered the access with an error, or there are no registers so far up"
    LONG = 5, "what the command answers finds no room behind the answers before it"
