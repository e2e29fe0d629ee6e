"""Why a command is abandoned, in plain Python: the RTL, the driver and docs/ltoaq.md all read this."""

from enum import IntEnum

__all__ = ["ErrorCode"]


class ErrorCode(IntEnum):
    """What ERROR.code says. Of several reasons that a descriptor's check finds, 1 to 7, the lowest counts.

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

    NONE = 0, "no error", ""
    BAD_OPCODE = 1, "unknown opcode", "see that nothing writes over descriptors, and that driver and accelerator are of one version"
    RESERVED_BITS = 2, "a reserved bit or unused field is set", "write 0 to what the command does not use"
    ZERO_SIZE = (3, "m, n or k is 0 or above 65535 (k: GEMM), or a run_stride is", "give sizes and run strides of 1 to 65535")
    MISALIGNED = (
        4,
        "an address or pitch is not a multiple of what it must be, or a pitch is shorter than its row",
        "align addresses and pitches to the bus, headers and descriptors to 32",
    )
    OUT_OF_WINDOW = (
        5,
        "a region leaves the memory window of the registers",
        "place tensors and descriptors inside WINDOW_BASE..WINDOW_LAST, or widen it",
    )
    BAD_FORMAT = (
        6,
        "T outside 1..Qmax, widths of A and W differ, alpha, multiplier or shift out of range",
        "check threshold (1..Qmax), alpha (at least 1), multiplier (1..255) and shift (0..39); give both operands one width",
    )
    BAD_TILING = (
        7,
        "groups do not fit the buffer or do not go with k_tiles",
        "use the tiling of the accelerator's own configuration",
    )
    MALFORMED_RUNS = (8, "a run-length segment is malformed", "see whether the operand's run lengths or header were written over")
    RUN_OVERFLOW = (9, "an output segment outgrew run_stride", "raise alpha, which leaves fewer outliers, or the stride")
    BUS_READ = 10, "the bus answered a read with an error", "see which addresses the memory refuses; the window may be too wide"
    BUS_WRITE = 11, "the bus answered a write with an error", "see which addresses the memory refuses; the window may be too wide"
    QUEUE_OVERFLOW = (
        12,
        "a descriptor was pushed into a full queue (the push is dropped)",
        "push only while STATUS.queue_full is 0",
    )
