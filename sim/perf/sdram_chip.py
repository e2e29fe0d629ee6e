"""A model of an SDR SDRAM that fails on the first command that comes too early, too late or where it must not."""

import random
from dataclasses import asdict
from typing import Any

from nibblecore.hdl.boards.chips import SdramChip, SdramTiming
from nibblecore.hdl.boards.sdram_controller import Command

__all__ = ["BrokenRule", "Sdram"]

_NEVER = -(10**9)
_ALL_BANKS = 1 << 10
_REFRESHES = 2
"""All chips want two at least when power came, and some eight: `SdramController` makes eight."""


class BrokenRule(AssertionError):
    """The message begins with the rule's name."""


class Sdram:
    """The chip behind the pads' registers: `edge` is told what the controller says in a cycle, and returns what it reads in the next.

    Parameters
    ----------
    chip : SdramChip
    timing : SdramTiming
    seed : int
        Of what was never written, and of what the wires hold while nobody drives them.
    more : dict
        Cycles by names of `timing` that are not the controller's, to see it fail; ``refi`` too.

    Members
    -------
    words : dict
        By address.
    counts : dict
        Of commands by name.
    """

    def __init__(self, chip: SdramChip, timing: SdramTiming, seed: int = 1, more: dict[str, int] | None = None) -> None:
        self.chip = chip
        self.times = asdict(timing) | (more or {})
        self.words: dict[int, int] = {}
        self.counts = {command.name: 0 for command in Command}
        self.now = 0
        self._seed = seed
        self._rng = random.Random(f"{seed} wires")
        self._rows: list[int | None] = [None] * chip.banks
        self._last = {name: [_NEVER] * chip.banks for name in ("ACTIVATE", "PRECHARGE", "WRITE")}
        self._refreshed = self._set = _NEVER
        self._closed = False  # when power came: all rows have been, so many refreshes, and the mode is set
        self._refreshes = 0
        self._ready = False
        self._reads: dict[int, int] = {}  # by cycle of the command: the word

    def word(self, address: int) -> int:
        if address not in self.words:
            self.words[address] = random.Random(f"{self._seed} {address}").getrandbits(16)
        return self.words[address]

    def edge(self, command: int, bank: int, address: int, mask: int, data: int, drive: int) -> int:
        """One cycle; `command` as of `Command`."""
        at, name = self.now, Command(command).name
        self.counts[name] += 1
        if name != "NOP":
            self._require("power_up", at >= self.times["power_up"])
            self._require("rfc", at - self._refreshed >= self.times["rfc"])
            self._require("mrd", at - self._set >= self.times["mrd"])
            getattr(self, f"_{name.lower()}")(bank, address)
        if self._ready:
            self._require("refi", at - self._refreshed <= self.times["refi"])
        else:
            self._require("masked at first", mask == 3)
        self._require("driven", drive == (name == "WRITE"))
        cas = self.times["cas"]
        self._require("two drive", not drive or not {at - cas, at - cas + 1} & self._reads.keys())
        self._require("read masked", not mask or at - cas + 2 not in self._reads)
        if name == "WRITE":
            place = self._place(bank, address)
            kept = sum(0xFF << 8 * lane for lane in range(2) if mask >> lane & 1)
            self.words[place] = self.word(place) & kept | data & ~kept & 0xFFFF
        self.now += 1
        return self._reads.pop(at - cas, self._rng.getrandbits(16))

    def _require(self, rule: str, holds: Any) -> None:
        if not holds:
            raise BrokenRule(f"{rule}: broken in cycle {self.now}")

    def _since(self, name: str, bank: int, times: str) -> None:
        self._require(times, self.now - self._last[name][bank] >= self.times[times])

    def _place(self, bank: int, column: int) -> int:
        row = self._rows[bank]
        assert row is not None
        return (row << self.chip.bank_bits | bank) << self.chip.column_bits | column

    def _activate(self, bank: int, row: int) -> None:
        self._require("mode set before rows are opened", self._ready)
        self._require("row closed before another is opened", self._rows[bank] is None)
        self._since("PRECHARGE", bank, "rp")
        self._since("ACTIVATE", bank, "rc")
        for other in range(self.chip.banks):
            self._since("ACTIVATE", other, "rrd")
        self._last["ACTIVATE"][bank], self._rows[bank] = self.now, row

    def _precharge(self, bank: int, address: int) -> None:
        for each in range(self.chip.banks) if address & _ALL_BANKS else [bank]:
            if self._rows[each] is not None:
                self._since("ACTIVATE", each, "ras")
                self._since("WRITE", each, "wr")
            self._last["PRECHARGE"][each], self._rows[each] = self.now, None
        self._closed |= bool(address & _ALL_BANKS)

    def _refresh(self, bank: int, address: int) -> None:
        self._require("rows closed when power came", self._closed)
        self._require("rows closed before a refresh", not any(row is not None for row in self._rows))
        for each in range(self.chip.banks):
            self._since("PRECHARGE", each, "rp")
            self._since("ACTIVATE", each, "rc")
        self._refreshed = self.now
        self._refreshes += 1

    def _mode(self, bank: int, address: int) -> None:
        self._require("rows closed when power came", self._closed)
        self._require("refreshes when power came", self._refreshes >= _REFRESHES)
        self._require("rows closed before the mode is set", not any(row is not None for row in self._rows))
        for each in range(self.chip.banks):
            self._since("PRECHARGE", each, "rp")
        self._require("mode", (bank, address) == (0, self.times["cas"] << 4))
        self._set, self._ready = self.now, True

    def _column(self, bank: int, column: int) -> None:
        self._require("row open", self._rows[bank] is not None)
        self._since("ACTIVATE", bank, "rcd")
        self._require("column", column < 1 << self.chip.column_bits)

    def _read(self, bank: int, column: int) -> None:
        self._column(bank, column)
        self._reads[self.now] = self.word(self._place(bank, column))

    def _write(self, bank: int, column: int) -> None:
        self._column(bank, column)
        self._last["WRITE"][bank] = self.now
