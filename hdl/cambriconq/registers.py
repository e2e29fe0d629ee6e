"""Cambricon-Q's registers, in plain Python: the RTL, the driver and docs/cambriconq-registers.md all read this.

``make docs`` writes the page.
"""

from nibblecore.hdl.bus.register_map import Access, Field, Register, RegisterMap, markdown
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.config import CambriconqConfig

__all__ = ["ID", "PHASES", "REGISTERS", "config_words", "page"]

ID = 0x4E42_0002
"""Value of register ID: "NB", Cambricon-Q."""

PHASES = 8
"""Phase counters."""

_CODES = "; ".join(f"{code.value} {code.name}" for code in ErrorCode)
_INTERRUPTS = (Field("done", 0, 0, "a program has ended"),)

REGISTERS = RegisterMap(
    "Cambricon-Q",
    (
        Register("ID", 0x00, Access.R, f'0x{ID >> 16:04X}_{ID & 0xFFFF:04X} ("NB", Cambricon-Q)'),
        Register(
            "CONFIG0",
            0x04,
            Access.R,
            "the machine's shape",
            (
                Field("rows", 0, 7, "rows N of the PE array"),
                Field("cols", 8, 15, "columns M of the PE array, values of a vector"),
                Field("bus_bytes", 16, 23, "width of the data bus"),
                Field("engine", 24, 24, "1: weights are updated beside the memory, 0: over the bus"),
            ),
        ),
        Register(
            "CONFIG1",
            0x08,
            Access.R,
            "its buffers",
            (
                Field("nbin", 0, 7, "bytes of NBin, as a power of two"),
                Field("sb", 8, 15, "bytes of SB, as a power of two"),
                Field("nbout", 16, 23, "bytes of NBout, as a power of two"),
            ),
        ),
        Register(
            "CONTROL",
            0x0C,
            Access.W,
            "each bit written 1 acts once",
            (
                Field("stop", 0, 0, "start no more instructions"),
                Field("clear_flags", 1, 1, "clear STATUS.nan, infinity and dropped"),
                Field("clear_counters", 2, 2, "clear the cycle counters"),
            ),
        ),
        Register(
            "STATUS",
            0x10,
            Access.R,
            "what it is doing",
            (
                Field("busy", 0, 0, "a program is running"),
                Field("nan", 1, 1, "a NaN was quantized (sticky)"),
                Field("infinity", 2, 2, "an infinity was quantized (sticky)"),
                Field("dropped", 3, 3, "START was written while a program was running, to no effect (sticky)"),
            ),
        ),
        Register("ERROR", 0x14, Access.R, "why the last program ended, 0 at HALT", (Field("code", 0, 3, _CODES),)),
        Register("INDEX", 0x18, Access.R, "the instruction that is next to start, or with which the program ended"),
        Register("IRQ_STATUS", 0x1C, Access.RW1C, "pending interrupts", _INTERRUPTS),
        Register("IRQ_ENABLE", 0x20, Access.RW, "interrupts that reach the interrupt pin", _INTERRUPTS),
        Register("MEMORY_LAST", 0x24, Access.RW, "last byte that programs may touch"),
        Register("START", 0x28, Access.W, "address of a program's first instruction, a multiple of 64: runs it"),
        Register("CYCLES", 0x2C, Access.R, "cycles busy"),
        Register("ARRAY_CYCLES", 0x30, Access.R, "cycles in which the PE array took a line"),
        Register("STARTED", 0x34, Access.R, "instructions that the program has started; they have all run, INDEX perhaps in part"),
        *(
            Register(f"PHASE{n}", 0x40 + 4 * n, Access.R, f"cycles in which the oldest instruction at work was of phase {n}")
            for n in range(PHASES)
        ),
    ),
)


def config_words(config: CambriconqConfig) -> tuple[int, int]:
    """What CONFIG0 and CONFIG1 of this machine read as."""
    nbin, sb, nbout = (size.bit_length() - 1 for size in (config.nbin_bytes, config.sb_bytes, config.nbout_bytes))
    return (
        REGISTERS["CONFIG0"].pack(
            rows=config.rows, cols=config.cols, bus_bytes=config.bus_bytes, engine=int(config.dram is not None)
        ),
        REGISTERS["CONFIG1"].pack(nbin=nbin, sb=sb, nbout=nbout),
    )


def page() -> str:
    """docs/cambriconq-registers.md."""
    return markdown(REGISTERS, "make docs")
