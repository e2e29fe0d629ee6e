"""Golden twin of a board's memory: what lies where, and what is outside."""

__all__ = ["BlockMemory"]

OKAY, DECERR = 0, 3


class BlockMemory:
    """Beats and bytes, each done at once.

    Parameters
    ----------
    bus_bytes, size : int
        Bytes of a beat and of the memory.

    Members
    -------
    data : bytearray
    """

    def __init__(self, bus_bytes: int, size: int) -> None:
        self.bus_bytes = bus_bytes
        self.data = bytearray(size)

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
