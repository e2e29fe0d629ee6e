"""The golden model's own list of why a command is abandoned."""

from enum import IntEnum

__all__ = ["ErrorCode"]


class ErrorCode(IntEnum):
    """Why a command was abandoned; of several reasons of a descriptor's check the lowest."""

    NONE = 0
    BAD_OPCODE = 1
    RESERVED_BITS = 2
    ZERO_SIZE = 3
    MISALIGNED = 4
    OUT_OF_WINDOW = 5
    BAD_FORMAT = 6
    BAD_TILING = 7
    MALFORMED_RUNS = 8
    RUN_OVERFLOW = 9
    BUS_READ = 10
    BUS_WRITE = 11
    QUEUE_OVERFLOW = 12
