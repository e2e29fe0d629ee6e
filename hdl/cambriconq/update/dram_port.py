"""What the engine beside the memory says to the banks, as one interface with flat names."""

from amaranth.lib.wiring import In, Out, Signature
from nibblecore.hdl.config import DramConfig

from .ndp_rows import OPERANDS

__all__ = ["DramPort"]


class DramPort(Signature):
    """Commands and column accesses, seen from the engine; a member ``dram`` flattens to ports ``dram__activate``, ``dram__row``, …

    One command goes out a cycle; besides, a column of each of three open rows is read and one of each is written. What was read comes in
    the cycle after. The timing is that of `NdpEngine`, which says more.

    Parameters
    ----------
    dram : DramConfig

    Members
    -------
    activate, precharge : Out(1)
        A command for row ``row`` of bank ``bank``; not both in a cycle.
    bank : Out(range(banks))
    row : Out(range(rows))
        ``row`` counts with ``activate``.
    read, write : Out(1)
        A column of each of the three banks is read, is written.
    read_column, write_column : Out(range(columns))
    read_bank_w, read_bank_m, read_bank_v, write_bank_w, write_bank_m, write_bank_v : Out(range(banks))
    read_w, read_m, read_v : In(32)
        What was read, in the next cycle.
    write_w, write_m, write_v : Out(32)
        What is written, in the same cycle.
    """

    def __init__(self, dram: DramConfig) -> None:
        self.dram = dram
        bank, column = Out(range(dram.banks)), Out(range(dram.columns))
        super().__init__(
            {
                "activate": Out(1),
                "precharge": Out(1),
                "bank": bank,
                "row": Out(range(dram.rows)),
                "read": Out(1),
                "read_column": column,
                "write": Out(1),
                "write_column": column,
                **{f"{way}_bank_{name}": bank for way in ("read", "write") for name in OPERANDS},
                **{f"read_{name}": In(32) for name in OPERANDS},
                **{f"write_{name}": Out(32) for name in OPERANDS},
            }
        )
