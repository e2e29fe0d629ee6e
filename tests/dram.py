"""A model of DRAM banks with row buffers that fails on the first command that a real one would not forgive."""

import random
from itertools import count
from typing import Any

import numpy as np
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.config import DramConfig
from numpy.typing import ArrayLike, NDArray

OPERANDS = ("w", "m", "v")
LOST = 0xDEADBEEF
"""What cells hold while their row is in the row buffer: reading them is destructive."""


class DramError(AssertionError):
    """A command came too early, or to a row that is not open."""


class Bank:
    """One bank. `now` counts cycles; a command takes effect at the end of its cycle."""

    def __init__(self, config: DramConfig, number: int) -> None:
        self.config, self.number = config, number
        self.cells = np.zeros((config.rows, config.columns), np.uint32)
        self.buffer = np.zeros(config.columns, np.uint32)
        self.row: int | None = None
        self.activated = self.precharged = self.written = -(10**9)

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise DramError(f"bank {self.number}: {what}")

    def _require_since(self, now: int, then: int, least: int, what: str) -> None:
        self._require(now - then >= least, f"{what}: {now - then} cycles, not {least}")

    def activate(self, now: int, row: int) -> None:
        self._require(self.row is None, f"ACTIVATE of row {row} while row {self.row} is open")
        self._require_since(now, self.precharged, self.config.rp, "ACTIVATE after PRECHARGE (tRP)")
        self.row, self.activated = row, now
        self.buffer[:] = self.cells[row]
        self.cells[row] = LOST

    def precharge(self, now: int) -> None:
        self._require(self.row is not None, "PRECHARGE while no row is open")
        self._require_since(now, self.activated, self.config.ras, "PRECHARGE after ACTIVATE (tRAS)")
        self._require_since(now, self.written, self.config.wr, "PRECHARGE after WRITE (tWR)")
        self.cells[self.row] = self.buffer
        self.row, self.precharged = None, now

    def _column(self, now: int, what: str) -> None:
        self._require(self.row is not None, f"{what} while no row is open")
        self._require_since(now, self.activated, self.config.rcd, f"{what} after ACTIVATE (tRCD)")

    def read(self, now: int, column: int) -> int:
        self._column(now, "READ")
        return int(self.buffer[column])

    def write(self, now: int, column: int, value: int) -> None:
        self._column(now, "WRITE")
        self.buffer[column] = value
        self.written = now


class Dram:
    """All banks, and memory as a whole; counts ACTIVATEs."""

    def __init__(self, config: DramConfig) -> None:
        self.config = config
        self.banks = [Bank(config, number) for number in range(config.banks)]
        self.activates = 0

    def command(self, now: int, activate: int, precharge: int, bank: int, row: int) -> None:
        """What the one command port says in this cycle."""
        if activate and precharge:
            raise DramError("ACTIVATE and PRECHARGE at once")
        if activate:
            self.banks[bank].activate(now, row)
            self.activates += 1
        if precharge:
            self.banks[bank].precharge(now)

    def load(self, words: ArrayLike) -> None:
        """Fills memory: words in the order of their addresses."""
        pages = np.asarray(words, np.uint32).reshape(self.config.rows, self.config.banks, self.config.columns)
        for number, bank in enumerate(self.banks):
            bank.cells[:] = pages[:, number]

    def words(self) -> NDArray[np.uint32]:
        """What the cells hold, in the order of addresses; an open row's are lost."""
        return np.stack([bank.cells for bank in self.banks], axis=1).ravel()

    def any_open(self) -> bool:
        return any(bank.row is not None for bank in self.banks)

    def close(self) -> None:
        """What whoever resets the engine does: every row back into its cells, and time to recover."""
        for bank in self.banks:
            if bank.row is not None:
                bank.cells[bank.row] = bank.buffer
                bank.row = None
            bank.activated = bank.precharged = bank.written = -(10**9)


class DramPort:
    """Plays memory at a `DramPort` of `dut` whose names begin with `prefix`; what is not read is noise.

    Either a bench calls `sample` and `drive` in every cycle, or `run` does.
    """

    def __init__(self, dut: Any, dram: Dram, rng: random.Random, prefix: str = "dram__") -> None:
        self.dut, self.dram, self.rng = dut, dram, rng
        self._port = {
            name: getattr(dut, prefix + name)
            for name in (
                "activate",
                "precharge",
                "bank",
                "row",
                "read",
                "read_column",
                "write",
                "write_column",
                *(f"{way}_{name}" for way in ("read", "read_bank", "write", "write_bank") for name in OPERANDS),
            )
        }
        self._found = [0, 0, 0]
        self.drive()

    def _get(self, name: str) -> int:
        return int(self._port[name].value)

    def sample(self, now: int) -> bool:
        """In the read-only phase: carries out what is asked for in cycle `now`, and says whether that reads a column."""
        dram, get = self.dram, self._get
        dram.command(now, get("activate"), get("precharge"), get("bank"), get("row"))
        self._found = [self.rng.getrandbits(32) for _ in OPERANDS]
        if get("read"):
            self._found = [dram.banks[get(f"read_bank_{name}")].read(now, get("read_column")) for name in OPERANDS]
        if get("write"):
            for name in OPERANDS:
                dram.banks[get(f"write_bank_{name}")].write(now, get("write_column"), get(f"write_{name}"))
        return bool(get("read"))

    def drive(self) -> None:
        """After the edge: what was read in the cycle before."""
        for name, value in zip(OPERANDS, self._found, strict=True):
            self._port[f"read_{name}"].value = value

    async def run(self) -> None:
        """Every cycle from here on; a reset of `dut` closes the banks."""
        for now in count():
            await ReadOnly()
            if self.dut.rst.value:
                self.dram.close()
            else:
                self.sample(now)
            await RisingEdge(self.dut.clk)
            self.drive()
