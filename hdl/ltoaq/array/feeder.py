"""Feeds one edge of the wide array from its side of the operand buffer."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.emit.emit import emit_once
from nibblecore.hdl.ltoaq.command.job import OperandFormat
from nibblecore.hdl.ltoaq.operands.operand_decoder import OperandDecoder
from nibblecore.hdl.ltoaq.operands.operand_setup import OperandSettings, OperandSetup
from nibblecore.hdl.ltoaq.operands.transposer import word_bits

from .wide_pe import LANE_BITS

__all__ = ["Feeder", "FeederLane", "read_layout"]


def read_layout(address_bits: int) -> data.StructLayout:
    """A read marching along an edge: which word of which address, and whether it is the first of a pass."""
    return data.StructLayout({"valid": 1, "boundary": 1, "select": 2, "address": address_bits})


@emit_once
class FeederLane(wiring.Component):
    """One bank's read port and operand decoders, one for every four lanes; hands the read on to the next lane a cycle later.

    Latency: the bank is read in the cycle of ``read``, and the word leaves on ``lanes`` two cycles after it, with its boundary.
    Throughput: a read a cycle.

    Parameters
    ----------
    role : str
        ``"a"`` or ``"w"``: which of the two operands, for the placing of 8-bit halves.
    block : int
        Edge B of a block, 4 or 8.
    address_bits : int
        Of a bank.
    lanes : int
        Of the array, 4 or 8; at most ``block``.

    Members
    -------
    settings : In(OperandSettings)
        Constant while words pass.
    read : In(read_layout(address_bits))
        Read of this cycle.
    read_next : Out(read_layout(address_bits))
        The same read one cycle later, for the next lane.
    read_enable : Out(1)
    read_address : Out(address_bits)
        To the bank, in the cycle of ``read``.
    read_data : In(5 * block)
        The bank's word, in the next cycle.
    lanes : Out(6 * lanes)
        Signed, lane 0 least significant; all 0 where no read was valid.
    boundary : Out(1)
        That of the read, valid or not.
    """

    def __init__(self, role: str, block: int, address_bits: int, lanes: int = 4) -> None:
        self.role, self.block, self.address_bits, self.decoders = role, block, address_bits, lanes // 4
        layout = read_layout(address_bits)
        super().__init__(
            {
                "settings": In(OperandSettings),
                "read": In(layout),
                "read_next": Out(layout),
                "read_enable": Out(1),
                "read_address": Out(address_bits),
                "read_data": In(word_bits(block)),
                "lanes": Out(lanes * LANE_BITS),
                "boundary": Out(1),
            }
        )

    @property
    def module_name(self) -> str:
        return f"feeder_lane_{self.role}{self.block}_{self.address_bits}_{4 * self.decoders}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        read = Signal(read_layout(self.address_bits))
        m.d.comb += [self.read_enable.eq(self.read.valid), self.read_address.eq(self.read.address), self.read_next.eq(read)]
        m.d.sync += [read.eq(self.read), self.boundary.eq(read.boundary)]
        nibbles, nibble_flags = self._word(read.select, 4)
        byte_codes, byte_flags = self._word(read.select, 8)
        eight_bit = self.settings.eight_bit
        decoded = []
        for i in range(self.decoders):
            m.submodules[f"decoder{i}"] = decoder = OperandDecoder(self.role)
            m.d.comb += [
                decoder.settings.eq(self.settings),
                decoder.codes.eq(Mux(eight_bit, byte_codes.word_select(i, 8), nibbles.word_select(i, 16))),
                decoder.flags.eq(Mux(eight_bit, byte_flags[i], nibble_flags.word_select(i, 4))),
            ]
            decoded.append(decoder.lanes)
        m.d.sync += self.lanes.eq(Mux(read.valid, Cat(decoded), 0))
        return m

    def _word(self, select: Value, bits: int) -> tuple[Value, Value]:
        """Codes and flags of the selected word of the array, out of those that lie in a buffer word."""
        elements = self.decoders * (4 if bits == 4 else 1)
        words = 4 * self.block // bits // elements
        codes, flags = self.read_data[: 4 * self.block], self.read_data[4 * self.block :]
        if words == 1:
            return codes, flags
        which = select[: (words - 1).bit_length()]
        return codes.word_select(which, bits * elements), flags.word_select(which, elements)


class Feeder(wiring.Component):
    """All lanes of one edge. A read enters at lane 0 and reaches lane i after i cycles, so the words leave skewed as the array needs them.

    Latency: the word of lane i leaves i + 2 cycles after its read entered. Throughput: a read of all banks a cycle.

    Parameters
    ----------
    role : str
        ``"a"``: a lane for each row; ``"w"``: for each output column.
    config : LtoaqConfig

    Members
    -------
    eight_bit : In(1)
    format : In(OperandFormat)
        Both constant from the cycle a read enters until its last lane has left.
    read : In(read_layout(⌈log2 bank_words⌉))
        May be valid in every cycle.
    read_enable : Out(banks)
    read_address : Out(banks * ⌈log2 bank_words⌉)
    read_data : In(banks * 5 * block)
        All banks, bank 0 least significant, as in `OperandBuffer`.
    lanes : Out(banks * 6 * config.lanes)
        Lane by lane, lane 0 least significant; 0 where no read was valid.
    boundary : Out(banks)
        A bit a lane.
    """

    def __init__(self, role: str, config: LtoaqConfig) -> None:
        self.role, self.config, self.block = role, config, config.block
        self.banks = config.rows if role == "a" else config.output_cols
        self.address_bits = (config.bank_words - 1).bit_length()
        super().__init__(
            {
                "eight_bit": In(1),
                "format": In(OperandFormat),
                "read": In(read_layout(self.address_bits)),
                "read_enable": Out(self.banks),
                "read_address": Out(self.banks * self.address_bits),
                "read_data": In(self.banks * word_bits(self.block)),
                "lanes": Out(self.banks * config.lanes * LANE_BITS),
                "boundary": Out(self.banks),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.setup = setup = OperandSetup()
        m.d.comb += [
            setup.eight_bit.eq(self.eight_bit),
            setup.is_signed.eq(self.format.signed),
            setup.k.eq(self.format.k),
            setup.threshold.eq(self.format.threshold),
        ]
        # Constant during a command: a register here keeps their derivation out of the decoders' timing.
        settings = Signal(OperandSettings)
        m.d.sync += settings.eq(setup.settings)
        read = self.read
        for i in range(self.banks):
            lane = FeederLane(self.role, self.block, self.address_bits, self.config.lanes)
            m.submodules[f"lane{i}"] = lane
            m.d.comb += [
                lane.settings.eq(settings),
                lane.read.eq(read),
                self.read_enable[i].eq(lane.read_enable),
                self.read_address.word_select(i, self.address_bits).eq(lane.read_address),
                lane.read_data.eq(self.read_data.word_select(i, word_bits(self.block))),
                self.lanes.word_select(i, len(lane.lanes)).eq(lane.lanes),
                self.boundary[i].eq(lane.boundary),
            ]
            read = lane.read_next
        return m
