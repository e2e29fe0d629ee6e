"""Why a program is stopped, in plain Python: the RTL, the driver and docs/cambriconq.md all read this."""

from enum import IntEnum

__all__ = ["ErrorCode"]


class ErrorCode(IntEnum):
    """What ERROR.code says. Of several reasons that can be found before anything is moved, 1 to 6, the lowest counts.

    Members
    -------
    cause : str
        What was found.
    remedy : str
        What to do, or where to look.
    """

    cause: str
    remedy: str

    def __new__(cls, value: int, cause: str = "", remedy: str = "") -> "ErrorCode":
        code = int.__new__(cls, value)
        code._value_, code.cause, code.remedy = value, cause, remedy
        return code

    NONE = 0, "HALT, or CONTROL.stop", ""
    ILLEGAL_INSTRUCTION = (
        1,
        "no such opcode, a reserved bit set, a choice that does not exist",
        "end the program with HALT, and see that nothing writes over it",
    )
    ZERO_SIZE = 2, "a size is 0", "give rows, columns, vectors, strides and kernels at least 1"
    MISALIGNED = (
        3,
        "an address that is no multiple of its word, line or instruction; w, m, v not in the same column",
        "align FP32 numbers to 4 bytes, lines to the bus, tags to 2, programs to 64, a product's results to NBout's rows",
    )
    MEMORY_RANGE = (
        4,
        "beyond MEMORY_LAST, or beyond the memory of the engine",
        "keep operands, and the program up to its HALT, inside memory",
    )
    BUFFER_RANGE = (5, "beyond a buffer", "split the operand, or place it lower: CONFIG1 says how large the buffers are")
    BAD_FORMAT = (
        6,
        "slot or group out of range, a candidate or a tag in memory that does not fit its slot, a CROSET value that means nothing, "
        "a VTURN onto its own source",
        "check slot (1 to 4), group, the SQU's candidates and the tags that VLOAD reads",
    )
    TAG_MISMATCH = (7, "lines of one group with different tags", "quantize a row in one block, or make the group smaller")
    NO_TAG = (8, "an operand that nothing has written", "write whole vectors there first, in the slot with which they are read")
    BUS_READ = 9, "the bus answered a read with an error", "see which addresses the memory refuses; MEMORY_LAST may be too high"
    BUS_WRITE = 10, "the bus answered a write with an error", "see which addresses the memory refuses; MEMORY_LAST may be too high"
    BANK_CONFLICT = (11, "w, m and v are not two banks apart, or overlap", "place w, m and v in banks at least two apart")
