"""The output buffer NBout: FP32 words in banks side by side."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.memory import Memory

__all__ = ["Nbout", "row_bits"]


_PARITIES = 2


def row_bits(words: int, lanes: int) -> int:
    """Width of a row's number; ValueError unless both are powers of two, at least two lanes and two rows."""
    if lanes < 2 or lanes & (lanes - 1) or words & (words - 1) or words < 2 * lanes:
        raise ValueError(f"NBout needs powers of two, two or more lanes and two or more rows, not {words} words in {lanes} lanes")
    return (words // lanes).bit_length() - 1


class Nbout(wiring.Component):
    """Word a is in lane a mod lanes of row a // lanes. A row is written a cycle, any of its lanes, and one or two are read.

    Even and odd rows are in banks of their own. The first reader is never refused; the second has the banks that the first leaves.

    Reading a row while it is being written returns old or new words, as in `Memory`; nothing is defined before it was written.

    Latency: a row is at ``read_data`` the cycle after ``read_enable``, at ``second_data`` the cycle after it was granted, and means nothing
    later. Throughput: a row written and a row read a cycle, and another one where one is even and the other odd.

    Parameters
    ----------
    words, lanes : int
        Powers of two, lanes ≥ 2, words ≥ 4·lanes; ValueError otherwise.

    Members
    -------
    read_enable : In(1)
    read_row : In(log2(words / lanes))
    read_data : Out(32 * lanes)
        Lane 0 least significant, as in ``second_data`` and ``write_data``.
    second : In(stream of rows)
        Valid requests, ready grants: unless the first reader wants a row of the same parity.
    second_data : Out(32 * lanes)
    write_enable : In(lanes)
        Lanes to write, a bit for each.
    write_row : In(log2(words / lanes))
    write_data : In(32 * lanes)
    """

    def __init__(self, words: int, lanes: int) -> None:
        bits = row_bits(words, lanes)
        if bits < 2:
            raise ValueError(f"NBout needs two rows of either parity, not {words} words in {lanes} lanes")
        self.words, self.lanes = words, lanes
        super().__init__(
            {
                "read_enable": In(1),
                "read_row": In(bits),
                "read_data": Out(32 * lanes),
                "second": In(stream.Signature(bits)),
                "second_data": Out(32 * lanes),
                "write_enable": In(lanes),
                "write_row": In(bits),
                "write_data": In(32 * lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first_odd = Signal()
        second_odd = Signal()
        granted = Signal()
        m.d.comb += [
            self.second.ready.eq(~self.read_enable | (self.read_row[0] != self.second.payload[0])),
            granted.eq(self.second.valid & self.second.ready),
        ]
        m.d.sync += [first_odd.eq(self.read_row[0]), second_odd.eq(self.second.payload[0])]
        rows = [self._bank(m, parity, granted) for parity in range(_PARITIES)]
        m.d.comb += [self.read_data.eq(Mux(first_odd, rows[1], rows[0])), self.second_data.eq(Mux(second_odd, rows[1], rows[0]))]
        return m

    def _bank(self, m: Module, parity: int, granted: Signal) -> Value:
        """The rows of one parity; the one that was read in the cycle before."""
        mine = Signal(name=f"first_reads{parity}")
        second = Signal(name=f"second_reads{parity}")
        m.d.comb += [
            mine.eq(self.read_enable & (self.read_row[0] == parity)),
            second.eq(granted & (self.second.payload[0] == parity)),
        ]
        lanes = []
        for lane in range(self.lanes):
            m.submodules[f"bank{parity}_{lane}"] = bank = Memory(32, self.words // self.lanes // _PARITIES)
            m.d.comb += [
                bank.read_enable.eq(mine | second),
                bank.read_address.eq(Mux(mine, self.read_row, self.second.payload) >> 1),
                bank.write_enable.eq(self.write_enable[lane] & (self.write_row[0] == parity)),
                bank.write_address.eq(self.write_row >> 1),
                bank.write_data.eq(self.write_data.word_select(lane, 32)),
            ]
            lanes.append(bank.read_data)
        return Cat(lanes)
