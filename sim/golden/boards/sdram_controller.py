"""Golden twin of the SDRAM's controller: what lies where, and what comes back in which order."""

__all__ = ["SdramController"]


class SdramController:
    """Words, each done at once.

    Members
    -------
    words : dict
        By address, as far as they were written.
    """

    def __init__(self) -> None:
        self.words: dict[int, int] = {}

    def request(self, address: int, write: int, word: int, strobe: int, tag: int) -> tuple[int, int] | None:
        """Tag and word that come back, 0 where nothing was written; None for what is written."""
        before = self.words.get(address, 0)
        if not write:
            return tag, before
        lanes = sum(0xFF << 8 * lane for lane in range(2) if strobe >> lane & 1)
        self.words[address] = before & ~lanes | word & lanes
        return None
