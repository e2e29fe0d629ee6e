"""The LT-OAQ accelerator's registers, in plain Python: the RTL, the driver and docs/ltoaq-registers.md all read this.

``make docs`` writes the page.
"""

from nibblecore.hdl.bus.register_map import Access, Field, Register, RegisterMap, markdown
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.errors import ErrorCode

__all__ = ["ID", "REGISTERS", "config_words", "page"]

ID = 0x4E42_0001
"""Value of register ID: "NB", LT-OAQ."""

_INTERRUPTS = (Field("done", 0, 0, "a command with `interrupt` set is done"), Field("error", 1, 1, "an error was met"))

REGISTERS = RegisterMap(
    "LT-OAQ",
    (
        Register("ID", 0x00, Access.R, f'0x{ID >> 16:04X}_{ID & 0xFFFF:04X} ("NB", LT-OAQ)'),
        Register(
            "CONFIG0",
            0x04,
            Access.R,
            "the machine's shape",
            (
                Field("output_rows", 0, 7, "rows of outputs of the array"),
                Field("output_cols", 8, 15, "columns of outputs of the array"),
                Field("tile", 16, 23, "edge of the storage tile"),
                Field("bus_bytes", 24, 31, "width of the data bus"),
            ),
        ),
        Register(
            "CONFIG1",
            0x08,
            Access.R,
            "the machine's shape, continued",
            (
                Field("bank_words", 0, 15, "words in each bank of the operand buffer, both halves together"),
                Field("lanes", 16, 19, "4-bit products a processing element forms in a cycle"),
                Field("fused", 20, 20, "1: fused clusters, 0: wide array"),
                Field("run_bits", 24, 27, "width of a run-length code"),
                Field("queue_depth", 28, 31, "descriptors that the queue holds, as a power of two"),
            ),
        ),
        Register(
            "CONTROL",
            0x0C,
            Access.W,
            "each bit written 1 acts once",
            (
                Field("clear_error", 0, 0, "clear ERROR and the overflow flag"),
                Field("clear_counters", 1, 1, "clear DONE, ABANDONED and the cycle counters"),
                Field("soft_reset", 2, 2, "abandon the running command and those in the queue"),
            ),
        ),
        Register(
            "STATUS",
            0x10,
            Access.R,
            "what it is doing",
            (
                Field("busy", 0, 0, "a command is running or queued"),
                Field("queue_full", 1, 1, "a push would be dropped"),
                Field("error", 2, 2, "ERROR holds an error"),
                Field("overflow", 3, 3, "an accumulator overflowed (sticky)"),
                Field("queue_level", 8, 15, "descriptors in the queue"),
            ),
        ),
        Register(
            "ERROR",
            0x14,
            Access.R,
            "the first error since the last clear",
            (
                Field("code", 0, 7, "; ".join(f"{code.value} {code.name}" for code in ErrorCode)),
                Field("sequence", 16, 31, "number of its command: DONE + ABANDONED at its start, 16 bits"),
            ),
        ),
        Register("IRQ_STATUS", 0x18, Access.RW1C, "pending interrupts", _INTERRUPTS),
        Register("IRQ_ENABLE", 0x1C, Access.RW, "interrupts that reach the interrupt pin", _INTERRUPTS),
        Register("WINDOW_BASE", 0x20, Access.RW, "first byte a command may touch, from the next that begins"),
        Register("WINDOW_LAST", 0x24, Access.RW, "last byte it may touch, likewise"),
        Register("PUSH", 0x28, Access.W, "address of a descriptor, queued"),
        Register("DONE", 0x2C, Access.R, "commands whose results are in memory; wraps"),
        Register("CYCLES", 0x30, Access.R, "cycles busy"),
        Register("ARRAY_CYCLES", 0x34, Access.R, "cycles in which the array took a word"),
        Register("LOAD_STALLS", 0x38, Access.R, "cycles a tile pass waited for operands"),
        Register("OUTPUT_STALLS", 0x3C, Access.R, "cycles a tile pass waited for the tile buffer"),
        Register("ABANDONED", 0x40, Access.R, "commands that an error or a soft reset abandoned, those in the queue too; wraps"),
    ),
)


def config_words(config: LtoaqConfig) -> tuple[int, int]:
    """What CONFIG0 and CONFIG1 of this machine read as."""
    return (
        REGISTERS["CONFIG0"].pack(
            output_rows=config.rows, output_cols=config.output_cols, tile=config.tile, bus_bytes=config.bus_bytes
        ),
        REGISTERS["CONFIG1"].pack(
            bank_words=config.bank_words,
            lanes=config.lanes,
            fused=int(config.fused),
            run_bits=config.run_bits,
            queue_depth=config.queue_depth.bit_length() - 1,
        ),
    )


def page() -> str:
    """docs/ltoaq-registers.md."""
    return markdown(REGISTERS, "make docs")
