"""Words in an SDR SDRAM: commands to the chip, each in its time."""

from enum import IntEnum

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .chips import SdramChip, SdramTiming

__all__ = ["Command", "SdramController", "SdramPins", "word_layout"]

_ALL_BANKS = 1 << 10
_REFRESHES = 8
"""When power came; two are enough for some chips."""


class Command(IntEnum):
    """RAS, CAS and WE, in this order from bit 0 on, 1 where the chip's wire is low."""

    NOP = 0b000
    ACTIVATE = 0b001
    READ = 0b010
    REFRESH = 0b011
    PRECHARGE = 0b101
    WRITE = 0b110
    MODE = 0b111


class SdramPins(wiring.Signature):
    """Between a controller and the registers in the pads of a chip's wires, seen from the controller.

    Parameters
    ----------
    chip : SdramChip

    Members
    -------
    command : Out(Command)
    bank : Out(⌈log2 banks⌉)
    address : Out(row_bits)
        Row, or column with A10.
    mask : Out(2)
        DQM: bytes that are not written.
    data_out : Out(16)
    drive : Out(1)
        Put ``data_out`` on the wires.
    data_in : In(16)
    """

    def __init__(self, chip: SdramChip) -> None:
        self.chip = chip
        super().__init__(
            {
                "command": Out(Command),
                "bank": Out(chip.bank_bits),
                "address": Out(chip.row_bits),
                "mask": Out(chip.WORD_BYTES),
                "data_out": Out(16),
                "drive": Out(1),
                "data_in": In(16),
            }
        )


def word_layout(chip: SdramChip) -> data.StructLayout:
    """A word to be read, with a ``tag`` that comes back with it, or of a word those bytes to be written that ``strobe`` names."""
    return data.StructLayout({"address": chip.address_bits, "write": 1, "data": 16, "strobe": 2, "tag": 1})


class SdramController(wiring.Component):
    """Reads and writes words of a chip in their order, and refreshes it.

    Bursts have length 1: a word is a command, and a command a cycle. A bank's row stays open until a word of another row or a refresh
    comes. All rows are closed for a refresh, at the latest ``timing.refi`` cycles after the one before.

    Only words that were asked for and have not come are forgotten in a reset: the chip goes on being refreshed and keeps what it has. What
    is told to the chip begins once, from the initial values of an FPGA's registers, with ``timing.power_up`` cycles of nothing, then
    closes all rows, refreshes eight times and sets the mode.

    Latency: a word ``timing.cas`` + 2 cycles after its request was taken (`latency`); pads have a register each way. Throughput: a word a
    cycle in an open row, but for a write after a read, which waits ``timing.cas`` cycles. Another row of a bank takes ``timing.rp`` +
    ``timing.rcd`` cycles more, after a refresh ``timing.rcd``; a refresh ``timing.rp`` + ``timing.rfc``.

    Parameters
    ----------
    chip : SdramChip
    timing : SdramTiming
        Of the chip at the clock of the design.

    Members
    -------
    request : In(stream of ``word_layout(chip)``)
        Taken when its command goes to the chip.
    found : Out(1)
        A word that was asked for has come; to be taken at once.
    tag : Out(1)
        That of its request.
    word : Out(16)
    pins : Out(SdramPins(chip))
        The pads' registers take what it says at the end of a cycle, and the chip sees it half a cycle later: its clock is the design's,
        inverted.
    """

    def __init__(self, chip: SdramChip, timing: SdramTiming) -> None:
        self.chip = chip
        self.timing = timing
        super().__init__(
            {
                "request": In(stream.Signature(word_layout(chip))),
                "found": Out(1),
                "tag": Out(1),
                "word": Out(16),
                "pins": Out(SdramPins(chip)),
            }
        )

    @property
    def latency(self) -> int:
        return self.timing.cas + 2

    @property
    def mode(self) -> int:
        """The mode register: bursts of one word, and the CAS latency."""
        return self.timing.cas << 4

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chip, timing = self.chip, self.timing
        request = self.request.payload
        column = request.address[: chip.column_bits]
        bank = request.address[chip.column_bits :][: chip.bank_bits]
        row = request.address[chip.column_bits + chip.bank_bits :]

        # Down to 0, one a cycle: until any command, PRECHARGE, ACTIVATE or REFRESH, WRITE.
        silence = self._timer(
            m, "silence", max(timing.power_up, timing.rcd, timing.rp, timing.rfc, timing.mrd), init=timing.power_up
        )
        until_close = self._timer(m, "until_close", max(timing.ras, timing.wr))
        until_open = self._timer(m, "until_open", timing.rc)
        until_write = self._timer(m, "until_write", timing.cas)

        is_open = Signal(chip.banks, reset_less=True)
        rows = Array(Signal(chip.row_bits, name=f"row{number}", reset_less=True) for number in range(chip.banks))
        hit = Signal()
        m.d.comb += hit.eq(is_open.bit_select(bank, 1) & (rows[bank] == row))
        command = Signal(Command)
        due = self._refresh_timer(m, command)

        step = Signal(_Step, init=_Step.PRECHARGE, reset_less=True)
        refreshes = Signal(range(_REFRESHES), init=_REFRESHES - 1, reset_less=True)
        address = Signal(chip.row_bits)
        m.d.comb += address.eq(row)
        with m.If(silence == 0), m.Switch(step):
            with m.Case(_Step.PRECHARGE):
                m.d.comb += [command.eq(Command.PRECHARGE), address.eq(_ALL_BANKS)]
                m.d.sync += step.eq(_Step.REFRESH)
            with m.Case(_Step.REFRESH):
                m.d.comb += command.eq(Command.REFRESH)
                m.d.sync += refreshes.eq(refreshes - 1)
                with m.If(refreshes == 0):
                    m.d.sync += step.eq(_Step.MODE)
            with m.Case(_Step.MODE):
                m.d.comb += [command.eq(Command.MODE), address.eq(self.mode)]
                m.d.sync += step.eq(_Step.READY)
            with m.Case(_Step.READY):
                with m.If(due):
                    with m.If(is_open.any()):
                        m.d.comb += [command.eq(Mux(until_close == 0, Command.PRECHARGE, Command.NOP)), address.eq(_ALL_BANKS)]
                    with m.Elif(until_open == 0):
                        m.d.comb += command.eq(Command.REFRESH)
                with m.Elif(self.request.valid):
                    with m.If(hit):
                        m.d.comb += address.eq(column)
                        with m.If(~request.write):
                            m.d.comb += command.eq(Command.READ)
                        with m.Elif(until_write == 0):
                            m.d.comb += command.eq(Command.WRITE)
                    with m.Elif(is_open.bit_select(bank, 1)):
                        m.d.comb += [command.eq(Mux(until_close == 0, Command.PRECHARGE, Command.NOP)), address.eq(0)]
                    with m.Elif(until_open == 0):
                        m.d.comb += command.eq(Command.ACTIVATE)

        read = Signal()
        write = Signal()
        m.d.comb += [read.eq(command == Command.READ), write.eq(command == Command.WRITE), self.request.ready.eq(read | write)]
        with m.Switch(command):
            with m.Case(Command.ACTIVATE):
                m.d.sync += [is_open.bit_select(bank, 1).eq(1), rows[bank].eq(row)]
                m.d.sync += [silence.eq(timing.rcd - 1), until_open.eq(timing.rc - 1)]
                m.d.sync += until_close.eq(Mux(until_close > timing.ras, until_close - 1, timing.ras - 1))
            with m.Case(Command.PRECHARGE):
                m.d.sync += silence.eq(timing.rp - 1)
                m.d.sync += is_open.eq(Mux(address[10], 0, is_open & ~(1 << bank)))
            with m.Case(Command.REFRESH):
                m.d.sync += silence.eq(timing.rfc - 1)
            with m.Case(Command.MODE):
                m.d.sync += silence.eq(timing.mrd - 1)
            with m.Case(Command.READ):
                m.d.sync += until_write.eq(timing.cas)
            with m.Case(Command.WRITE):
                m.d.sync += until_close.eq(Mux(until_close > timing.wr, until_close - 1, timing.wr - 1))
        self._say(m, command, bank, address, write, step != _Step.READY)

        coming = Signal(self.latency)
        tags = Signal(self.latency)
        m.d.sync += [coming.eq(Cat(read, coming)), tags.eq(Cat(request.tag, tags))]
        m.d.comb += [self.found.eq(coming[-1]), self.tag.eq(tags[-1]), self.word.eq(self.pins.data_in)]
        return m

    def _timer(self, m: Module, name: str, most: int, init: int = 0) -> Signal:
        timer = Signal(range(most + 1), name=name, init=init, reset_less=True)
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        return timer

    def _refresh_timer(self, m: Module, command: Signal) -> Signal:
        """Up from when a refresh is due until REFRESH; so early that with `longest` it is not late."""
        period = self.timing.refi - self.timing.longest
        elapsed = Signal(range(period), reset_less=True)
        due = Signal(reset_less=True)
        with m.If(command == Command.REFRESH):
            m.d.sync += due.eq(0)
        with m.If(elapsed == period - 1):
            m.d.sync += [elapsed.eq(0), due.eq(1)]
        with m.Else():
            m.d.sync += elapsed.eq(elapsed + 1)
        return due

    def _say(self, m: Module, command: Signal, bank: Value, address: Signal, write: Signal, begins: Value) -> None:
        """To the chip, in the next cycle. Bytes are masked while it begins, and where they are not written."""
        pins, request = self.pins, self.request.payload
        says = {"command": command, "bank": Mux(begins, 0, bank), "address": address, "data_out": request.data, "drive": write}
        says["mask"] = Mux(begins, 0b11, Mux(write, ~request.strobe, 0))
        for name, value in says.items():
            width = len(Value.cast(value))
            said = Signal(width, name=f"said_{name}", init=0b11 if name == "mask" else 0, reset_less=True)
            m.d.sync += said.eq(value)
            m.d.comb += Value.cast(getattr(pins, name)).eq(said)


class _Step(IntEnum):
    """Of what a chip wants to be told when power came."""

    PRECHARGE = 0
    REFRESH = 1
    MODE = 2
    READY = 3
