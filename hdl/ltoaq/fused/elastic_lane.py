"""Feeds one row or column of the fused array from its bank, at the pace the array takes."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once
from nibblecore.hdl.ltoaq.operands.transposer import word_bits

__all__ = ["ElasticLane"]


@emit_once
class ElasticLane(wiring.Component):
    """Reads the words of one tile pass and offers them two by two.

    A beat is {first word: 20 bits, second word: 20 bits, last: 1 bit}; a word is {codes: 16 bits, flags: 4 bits}, or with 8-bit
    codes one code in bits 7:0 and its flag in bit 16. An odd last word is followed by a zero word.

    Latency: the first beat is on offer 2 cycles after ``start``, 3 where it takes two reads: of 4-bit codes with B = 4, whose banks hold one
    word an address.
    Throughput: a beat a cycle, where a beat takes two reads every other cycle.

    Parameters
    ----------
    block : int
        Edge B of a block, 4 or 8.
    address_bits : int
        Of a bank.

    Members
    -------
    eight_bit : In(1)
        Constant while a pass is read.
    start : In(1)
        Not while ``busy``.
    address : In(address_bits)
        Of the pass's first word; counts with ``start``, like the next two.
    words : In(16)
        Of the pass, at least 1.
    ends : In(1)
        The pass's last beat is the last of a result.
    busy : Out(1)
        From the cycle after ``start`` until the last beat was taken.
    read_enable : Out(1)
    read_address : Out(address_bits)
    read_data : In(5 * block)
        The bank: the word in the next cycle, held until the next read.
    valid : Out(1)
    ready : In(1)
    payload : Out(41)
        The stream of beats.
    """

    def __init__(self, block: int, address_bits: int) -> None:
        self.block, self.address_bits = block, address_bits
        super().__init__(
            {
                "eight_bit": In(1),
                "start": In(1),
                "address": In(address_bits),
                "words": In(16),
                "ends": In(1),
                "busy": Out(1),
                "read_enable": Out(1),
                "read_address": Out(address_bits),
                "read_data": In(word_bits(block)),
                "valid": Out(1),
                "ready": In(1),
                "payload": Out(41),
            }
        )

    @property
    def module_name(self) -> str:
        return f"elastic_lane_{self.block}_{self.address_bits}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        b = self.block
        # words not yet read
        left = Signal(16)
        ends = Signal()
        half = Signal()  # of the address: which pair of 8-bit elements comes next
        beat_half = Signal()
        beat_odd = Signal()
        beat_last = Signal()
        have_first = Signal()
        first = Signal(20)
        pair = Signal()  # two reads make a beat
        gathered = Signal()  # the word on the bank's output waits for its partner
        step = Signal()
        m.d.comb += [
            pair.eq(~self.eight_bit if b == 4 else 0),
            step.eq((left != 0) & (~self.valid | self.ready)),
            self.read_enable.eq(step),
            self.busy.eq((left != 0) | self.valid),
        ]
        advance = Mux(self.eight_bit & (b == 8), half, 1)
        taken = Mux(pair, 1, Mux(left == 1, 1, 2))
        partner_follows = Signal()
        m.d.comb += partner_follows.eq(pair & ~have_first & (left != 1))
        with m.If(self.valid & self.ready):
            m.d.sync += self.valid.eq(0)
        with m.If(gathered):
            m.d.sync += [first.eq(self.read_data[:20]), gathered.eq(0)]
        with m.If(step):
            m.d.sync += [
                left.eq(left - taken),
                self.read_address.eq(self.read_address + advance),
                half.eq(~half),
                beat_half.eq(half),
            ]
            with m.If(partner_follows):
                m.d.sync += [have_first.eq(1), gathered.eq(1)]
            with m.Else():
                m.d.sync += [
                    self.valid.eq(1),
                    have_first.eq(0),
                    beat_odd.eq(Mux(pair, ~have_first, left == 1)),
                    beat_last.eq(ends & (left == taken)),
                ]
        with m.If(self.start):
            m.d.sync += [left.eq(self.words), self.read_address.eq(self.address), ends.eq(self.ends), half.eq(0)]

        codes, flags = self.read_data[: 4 * b], self.read_data[4 * b :]

        def byte(index: object) -> object:
            return Cat(codes.word_select(index, 8), Const(0, 8), flags.bit_select(index, 1), Const(0, 3))

        if b == 4:
            word_pair = Mux(
                self.eight_bit, Cat(byte(0), byte(1)), Mux(beat_odd, Cat(self.read_data, Const(0, 20)), Cat(first, self.read_data))
            )
        else:
            words = Cat(codes[:16], flags[:4], codes[16:], flags[4:])
            bytes_ = Cat(byte(Cat(Const(0, 1), beat_half)), byte(Cat(Const(1, 1), beat_half)))
            word_pair = Mux(self.eight_bit, bytes_, words)
        both = Signal(40)
        m.d.comb += [both.eq(word_pair), self.payload.eq(Cat(both[:20], Mux(beat_odd, 0, both[20:]), beat_last))]
        return m
