"""Any one word of the operand buffer reads back as it was written last."""

from amaranth import Module, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.operands.operand_buffer import OperandBuffer
from nibblecore.hdl.ltoaq.operands.transposer import word_bits

BANKS, WORDS, BLOCK = 8, 4, 4
WIDTH = word_bits(BLOCK)


class WordSpec(wiring.Component):
    """Follows one address of one bank; with `fault`, some writes to group 1 go to group 0."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__(
            {
                "write": In(1),
                "group": In(1),
                "target": In(2),
                "data": In(BLOCK * WIDTH),
                "reads": In(BANKS),
                "addresses": In(2 * BANKS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.buffer = buffer = OperandBuffer(BANKS, WORDS, BLOCK)
        bank, address = AnyConst(3), AnyConst(2)
        m.d.comb += [
            buffer.write_enable.eq(self.write),
            buffer.write_group.eq(self.group & ~(self.fault & self.data[0])),
            buffer.write_address.eq(self.target),
            buffer.write_data.eq(self.data),
            buffer.read_enable.eq(self.reads),
            buffer.read_address.eq(self.addresses),
        ]
        known, value = Signal(), Signal(WIDTH)
        mine, reading = Signal(), Signal()
        shown, expected = Signal(), Signal(WIDTH)
        m.d.comb += [
            mine.eq(self.write & (self.group == bank[2]) & (self.target == address)),
            reading.eq(self.reads.bit_select(bank, 1) & (self.addresses.word_select(bank, 2) == address)),
            Assume(~(mine & reading)),  # a word that is being written is not read
        ]
        with m.If(mine):
            m.d.sync += [known.eq(1), value.eq(self.data.word_select(bank[:2], WIDTH))]
        with m.If(self.reads.bit_select(bank, 1)):
            m.d.sync += [shown.eq(reading & known), expected.eq(value)]
        with m.If(shown):
            m.d.comb += [Assert(buffer.read_data.word_select(bank, WIDTH) == expected), Cover((expected == 0xABCDE) & mine)]
        return m


PROOFS = [
    Proof(
        name="ltoaq.operands.operand_buffer.word",
        spec=WordSpec,
        fault=lambda: WordSpec(fault=True),
        cover_depth=6,
        reason="every bank is the same and addresses are only compared: 8 banks of 4 words stand for all",
    )
]
