"""The on-chip operand buffer: one bank for each row (or column) of the array."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.memory import Memory

from .transposer import word_bits

__all__ = ["OperandBuffer"]


class OperandBuffer(wiring.Component):
    """One side's banks, written B at a time by the loader and read one by one as the wave of a tile pass reaches them.

    Rows of a panel lie on banks modulo the number of banks. Reads and writes are independent; the sequencer keeps them in
    different halves of the banks, so that loading overlaps computing. A word must not be read in the cycle in which it is written.

    Latency: data of bank i appear the cycle after ``read_enable[i]`` and hold. Throughput: one write of B words and one read of
    every bank a cycle.

    Parameters
    ----------
    banks : int
        Rows (or output columns) of the array; a multiple of ``block``, ValueError otherwise.
    words : int
        Words of a bank.
    block : int
        Edge B of a block.

    Members
    -------
    write_enable : In(1)
    write_group : In(⌈log2 banks/block⌉)
        g selects banks g·B .. g·B + B − 1.
    write_address : In(⌈log2 words⌉)
        The same in all of them.
    write_data : In(block * 5 * block)
        B buffer words, see `Transposer`; that of the group's first bank least significant.
    read_enable : In(banks)
        A bit a bank.
    read_address : In(banks * ⌈log2 words⌉)
        Bank 0 least significant, as in ``read_data``.
    read_data : Out(banks * 5 * block)
    """

    def __init__(self, banks: int, words: int, block: int) -> None:
        if banks % block:
            raise ValueError(f"{banks} banks are not a multiple of the block edge {block}")
        self.banks, self.words, self.block = banks, words, block
        self.address_bits = (words - 1).bit_length()
        super().__init__(
            {
                "write_enable": In(1),
                "write_group": In(max(1, (banks // block - 1).bit_length())),
                "write_address": In(self.address_bits),
                "write_data": In(block * word_bits(block)),
                "read_enable": In(banks),
                "read_address": In(banks * self.address_bits),
                "read_data": Out(banks * word_bits(block)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = word_bits(self.block)
        for bank in range(self.banks):
            memory = Memory(width, self.words)
            m.submodules[f"bank{bank}"] = memory
            group, lane = divmod(bank, self.block)
            m.d.comb += [
                memory.write_enable.eq(self.write_enable & (self.write_group == group)),
                memory.write_address.eq(self.write_address),
                memory.write_data.eq(self.write_data.word_select(lane, width)),
                memory.read_enable.eq(self.read_enable[bank]),
                memory.read_address.eq(self.read_address.word_select(bank, self.address_bits)),
                self.read_data.word_select(bank, width).eq(memory.read_data),
            ]
        return m
