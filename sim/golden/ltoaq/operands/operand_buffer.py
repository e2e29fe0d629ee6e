"""Golden twin of the operand buffer: a dictionary."""

__all__ = ["Banks"]


class Banks:
    """What every word of every bank holds; words that were never written are absent."""

    def __init__(self, block: int, word_bits: int) -> None:
        self.block, self.word_bits = block, word_bits
        self.words: dict[tuple[int, int], int] = {}

    def write(self, group: int, address: int, data: int) -> None:
        """Bank group·B + i takes word i of `data`."""
        for lane in range(self.block):
            self.words[group * self.block + lane, address] = data >> lane * self.word_bits & (1 << self.word_bits) - 1

    def read(self, bank: int, address: int) -> int | None:
        return self.words.get((bank, address))
