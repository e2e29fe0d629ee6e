"""Golden twin of a board's memory: what lies where, and what is outside."""

from nibblecore.hdl.config import DramConfig

__all__ = ["BlockMemory"]

OKAY, DECERR = 0, 3


class BlockMemory:
    """Beats, bytes and columns, each done at once.

    Parameters
    ----------
    bus_bytes, size : int
        Bytes of a beat and of the memory.
    dram : DramConfig or None
        Where the engine's rows lie, if there is one.

    Members
    -------
    data : bytearray
    """

    def __init__(self, bus_bytes: int, size: int, dram: DramConfig | None = None) -> None:
        self.bus_bytes = bus_bytes
        self.dram = dram or DramConfig()
        self.data = bytearray(size)
        self._rows = [0] * self.dram.banks

    def response(self, address: int) -> int:
        return OKAY if address < len(self.data) else DECERR

    def read(self, address: int) -> int:
        """A beat; 0 outside."""
        return int.from_bytes(self.data[address : address + self.bus_bytes], "little")

    def write(self, address: int, word: int, strobe: int) -> None:
        """A beat; nothing outside."""
        for lane in range(self.bus_bytes):
            if strobe >> lane & 1 and address + lane < len(self.data):
                self.data[address + lane] = word >> 8 * lane & 0xFF

    def activate(self, bank: int, row: int) -> None:
        self._rows[bank] = row

    def column_address(self, bank: int, column: int) -> int:
        """Of a word of the bank's open row."""
        page = self._rows[bank] * self.dram.banks + bank
        return 4 * (page * self.dram.columns + column)

    def read_column(self, bank: int, column: int) -> int:
        """A word; 0 outside."""
        address = self.column_address(bank, column)
        return int.from_bytes(self.data[address : address + 4], "little")

    def write_column(self, bank: int, column: int, word: int) -> None:
        """A word; nothing outside."""
        address = self.column_address(bank, column)
        if address < len(self.data):
            self.data[address : address + 4] = word.to_bytes(4, "little")
