"""Feeds one edge of the wide array from its side of the operand buffer."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import LtoaqConfig
from ..emit import emit_once
from .job import OperandFormat
from .operand import OperandDecoder
from .operand_setup import OperandSettings, OperandSetup
from .transposer import word_bits

__all__ = ["Feeder", "FeederLane", "read_layout"]


def read_layout(address_bits: int) -> data.StructLayout:
    """A read marching along an edge: which word of which address, and whether it is the first of a pass."""
    return data.StructLayout({"valid": 1, "boundary": 1, "select": 2, "address": address_bits})


@emit_once
class FeederLane(wiring.Component):
    """One bank's read port and operand decoder; hands the read on to the next lane a cycle later.

    Latency: lanes of a read entering in cycle t leave in cycle t + 2, zero where no read was valid.

    Parameters
    ----------
    role : str
        ``"a"`` or ``"w"``: which of the two operands, for the placing of 8-bit halves.
    block, address_bits : int

    Members
    -------
    settings : In
        Constant while words pass.
    read : In
        Read of this cycle.
    read_next : Out
        The same read one cycle later, for the next lane.
    read_enable, read_address : Out, read_data : In
        The bank.
    lanes : Out, 24 bits
    boundary : Out
    """

    def __init__(self, role: str, block: int, address_bits: int) -> None:
        self.role, self.block, self.address_bits = role, block, address_bits
        layout = read_layout(address_bits)
        super().__init__(
            {
                "settings": In(OperandSettings),
                "read": In(layout),
                "read_next": Out(layout),
                "read_enable": Out(1),
                "read_address": Out(address_bits),
                "read_data": In(word_bits(block)),
                "lanes": Out(24),
                "boundary": Out(1),
            }
        )

    @property
    def module_name(self) -> str:
        return f"feeder_lane_{self.role}{self.block}_{self.address_bits}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.decoder = decoder = OperandDecoder(self.role)
        b = self.block
        read = Signal(read_layout(self.address_bits))
        codes, flags = self.read_data[: 4 * b], self.read_data[4 * b :]
        m.d.comb += [self.read_enable.eq(self.read.valid), self.read_address.eq(self.read.address), self.read_next.eq(read)]
        m.d.sync += [read.eq(self.read), self.boundary.eq(read.boundary)]
        word = Cat(codes.word_select(read.select[:1], 16), flags.word_select(read.select[:1], 4)) if b == 8 else self.read_data
        byte = Cat(
            codes.word_select(read.select if b == 8 else read.select[:1], 8),
            Const(0, 8),
            flags.bit_select(read.select, 1) if b == 8 else flags.bit_select(read.select[:1], 1),
        )
        m.d.comb += [
            Cat(decoder.codes, decoder.flags).eq(Mux(self.settings.eight_bit, byte, word)),
            decoder.settings.eq(self.settings),
        ]
        m.d.sync += self.lanes.eq(Mux(read.valid, decoder.lanes, 0))
        return m


class Feeder(wiring.Component):
    """All lanes of one edge. A read enters at lane 0 and reaches lane i after i cycles, so the words leave skewed as the array needs them.

    Parameters
    ----------
    role : str
    config : LtoaqConfig

    Members
    -------
    eight_bit, format : In
        Constant from the cycle a read enters until its last lane has left.
    read : In
        May be valid in every cycle.
    read_enable, read_address : Out, read_data : In
        All banks, as in `OperandBuffer`.
    lanes : Out, banks × 24 bits
    boundary : Out, banks bits
    """

    def __init__(self, role: str, config: LtoaqConfig) -> None:
        self.role, self.block = role, config.block
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
                "lanes": Out(self.banks * 24),
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
            lane = FeederLane(self.role, self.block, self.address_bits)
            m.submodules[f"lane{i}"] = lane
            m.d.comb += [
                lane.settings.eq(settings),
                lane.read.eq(read),
                self.read_enable[i].eq(lane.read_enable),
                self.read_address.word_select(i, self.address_bits).eq(lane.read_address),
                lane.read_data.eq(self.read_data.word_select(i, word_bits(self.block))),
                self.lanes.word_select(i, 24).eq(lane.lanes),
                self.boundary[i].eq(lane.boundary),
            ]
            read = lane.read_next
        return m
