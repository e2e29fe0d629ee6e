"""The output buffer NBout: FP32 words in banks side by side."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.memory import Memory

__all__ = ["Nbout", "row_bits"]


def row_bits(words: int, lanes: int) -> int:
    """Width of a row's number; ValueError unless both are powers of two, at least two lanes and two rows."""
    if lanes < 2 or lanes & (lanes - 1) or words & (words - 1) or words < 2 * lanes:
        raise ValueError(f"NBout needs powers of two, two or more lanes and two or more rows, not {words} words in {lanes} lanes")
    return (words // lanes).bit_length() - 1


class Nbout(wiring.Component):
    """Word a is in bank a mod lanes, row a // lanes. One row is read and one written a cycle, any of its lanes.

    Reading a row while it is being written returns old or new words, as in `Memory`; nothing is defined before it was written.

    Latency: a row is at ``read_data`` the cycle after ``read_enable``, and holds until the next read.
    Throughput: a row read and a row written a cycle.

    Parameters
    ----------
    words, lanes : int
        Powers of two, lanes ≥ 2, words ≥ 2·lanes; ValueError otherwise.

    Members
    -------
    read_enable : In(1)
    read_row : In(log2(words / lanes))
    read_data : Out(32 * lanes)
        Lane 0 least significant, as in ``write_data``.
    write_enable : In(lanes)
        Lanes to write, a bit for each.
    write_row : In(log2(words / lanes))
    write_data : In(32 * lanes)
    """

    def __init__(self, words: int, lanes: int) -> None:
        bits = row_bits(words, lanes)
        self.words, self.lanes = words, lanes
        super().__init__(
            {
                "read_enable": In(1),
                "read_row": In(bits),
                "read_data": Out(32 * lanes),
                "write_enable": In(lanes),
                "write_row": In(bits),
                "write_data": In(32 * lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for lane in range(self.lanes):
            m.submodules[f"bank{lane}"] = bank = Memory(32, self.words // self.lanes)
            m.d.comb += [
                bank.read_enable.eq(self.read_enable),
                bank.read_address.eq(self.read_row),
                self.read_data.word_select(lane, 32).eq(bank.read_data),
                bank.write_enable.eq(self.write_enable[lane]),
                bank.write_address.eq(self.write_row),
                bank.write_data.eq(self.write_data.word_select(lane, 32)),
            ]
        return m
