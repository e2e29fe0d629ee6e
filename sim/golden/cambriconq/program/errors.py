"""The golden model's own list of why a program is stopped."""

from enum import IntEnum

__all__ = ["ErrorCode"]


class ErrorCode(IntEnum):
    """Why a program was stopped; of several reasons the lowest."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    ZERO_SIZE = 2
    MISALIGNED = 3
    MEMORY_RANGE = 4
    BUFFER_RANGE = 5
    BAD_FORMAT = 6
    TAG_MISMATCH = 7
    NO_TAG = 8
    BUS_READ = 9
    BUS_WRITE = 10
    BANK_CONFLICT = 11
