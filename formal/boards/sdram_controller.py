"""No command goes to the chip before its time, none where it must not, and a refresh in time; each word is read and written at its place."""

from dataclasses import replace
from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.hdl import Assert, Cover
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.boards.chips import SDRAM_32M, SdramTiming
from nibblecore.hdl.boards.sdram_controller import Command, SdramController, word_layout

__all__ = ["PROOFS"]

CHIP = replace(SDRAM_32M, banks=2, row_bits=11, column_bits=1)
TIMING = SdramTiming(cas=2, rcd=2, rp=2, ras=4, rc=7, rrd=2, wr=3, rfc=4, mrd=2, refi=24, power_up=3)
_REFRESHES = 2
_COLUMN = 1 << CHIP.column_bits


class CommandsSpec(wiring.Component):
    """Any requests at any time, and resets. The rules are kept beside the pins, as in a chip; they know of no reset.

    With `hasty` the controller was told of one time a cycle less than the chip's.
    """

    def __init__(self, hasty: str = "") -> None:
        self.times = replace(TIMING, **{hasty: getattr(TIMING, hasty) - 1}) if hasty else TIMING
        super().__init__({"request": In(stream.Signature(word_layout(CHIP)))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.controller = controller = SdramController(CHIP, self.times)
        pins = controller.pins
        wiring.connect(m, wiring.flipped(self.request), controller.request)

        says = {command: Signal(name=f"says_{command.name.lower()}") for command in Command}
        m.d.comb += [signal.eq(pins.command == command) for command, signal in says.items()]
        here = [Signal(name=f"here{bank}") for bank in range(CHIP.banks)]
        m.d.comb += [signal.eq(pins.bank == bank) for bank, signal in enumerate(here)]
        everywhere = pins.address[10]

        def since(name: str, event: Value, most: int, init: int | None = None) -> Signal:
            """Cycles since the event, which stop at `most`."""
            count = Signal(range(most + 1), name=f"since_{name}", init=most if init is None else init, reset_less=True)
            with m.If(event):
                m.d.sync += count.eq(1)
            with m.Elif(count != most):
                m.d.sync += count.eq(count + 1)
            return count

        def require(condition: Value, *holds: Value) -> None:
            m.d.comb += [Assert(Mux(condition, Value.cast(each).any(), 1)) for each in holds]

        power = since("power", 0, TIMING.power_up, init=0)
        refresh = since("refresh", says[Command.REFRESH], TIMING.refi + 1)
        mode = since("mode", says[Command.MODE], TIMING.mrd)
        closed = Signal(reset_less=True)
        ready = Signal(reset_less=True)
        refreshes = Signal(range(_REFRESHES + 1), reset_less=True)
        with m.If(says[Command.PRECHARGE] & everywhere):
            m.d.sync += closed.eq(1)
        with m.If(says[Command.REFRESH] & (refreshes != _REFRESHES)):
            m.d.sync += refreshes.eq(refreshes + 1)
        with m.If(says[Command.MODE]):
            m.d.sync += ready.eq(1)
        require(~says[Command.NOP], power == TIMING.power_up, refresh >= TIMING.rfc, mode >= TIMING.mrd)
        require(says[Command.REFRESH], closed)
        require(says[Command.MODE], closed, refreshes == _REFRESHES, (pins.bank == 0) & (pins.address == TIMING.cas << 4))
        require(says[Command.ACTIVATE], ready)
        require(ready, refresh <= TIMING.refi)
        require(~ready, pins.mask == 0b11)

        is_open = Array(Signal(name=f"is_open{bank}", reset_less=True) for bank in range(CHIP.banks))
        rows = Array(Signal(CHIP.row_bits, name=f"row{bank}", reset_less=True) for bank in range(CHIP.banks))
        column = says[Command.READ] | says[Command.WRITE]
        for bank in range(CHIP.banks):
            opens, closes = says[Command.ACTIVATE] & here[bank], says[Command.PRECHARGE] & (here[bank] | everywhere)
            activated = since(f"activate{bank}", opens, TIMING.rc)
            precharged = since(f"precharge{bank}", closes, TIMING.rp)
            written = since(f"write{bank}", says[Command.WRITE] & here[bank], TIMING.wr)
            with m.If(opens):
                m.d.sync += [is_open[bank].eq(1), rows[bank].eq(pins.address)]
            with m.Elif(closes):
                m.d.sync += is_open[bank].eq(0)
            require(opens, ~is_open[bank])
            require(opens | says[Command.REFRESH], activated >= TIMING.rc, precharged >= TIMING.rp)
            require(says[Command.ACTIVATE], activated >= TIMING.rrd)
            require(says[Command.REFRESH] | says[Command.MODE], ~is_open[bank], precharged >= TIMING.rp)
            require(closes & is_open[bank], activated >= TIMING.ras, written >= TIMING.wr)
            require(column & here[bank], is_open[bank], activated >= TIMING.rcd)
        require(column, pins.address < _COLUMN)

        # The wires: the chip drives them from the middle of one cycle to the middle of the next, TIMING.cas behind READ.
        reads = Signal(TIMING.cas, reset_less=True)
        m.d.sync += reads.eq(Cat(says[Command.READ], reads))
        require(pins.drive, ~reads.any())
        require(says[Command.READ], pins.mask == 0)
        m.d.comb += Assert(pins.drive == says[Command.WRITE])

        # A word goes where and as its request says, in the cycle after it was taken, and what is read comes when it must.
        taken = Signal(reset_less=True)
        asked = Signal(word_layout(CHIP), reset_less=True)
        m.d.sync += [taken.eq(controller.request.valid & controller.request.ready), asked.eq(controller.request.payload)]
        m.d.comb += Assert(column == taken)
        place = Cat(pins.address[: CHIP.column_bits], pins.bank, rows[pins.bank])
        require(column, place == asked.address, says[Command.WRITE] == asked.write)
        require(says[Command.WRITE], (pins.data_out == asked.data) & (pins.mask == ~asked.strobe))
        coming = Signal(controller.latency)
        tags = Signal(controller.latency)
        read = controller.request.valid & controller.request.ready & ~controller.request.payload.write
        m.d.sync += [coming.eq(Cat(read, coming)), tags.eq(Cat(controller.request.payload.tag, tags))]
        m.d.comb += Assert((controller.found == coming[-1]) & (controller.tag == tags[-1]))
        m.d.comb += [
            Cover(says[Command.WRITE] & is_open[0] & is_open[1]),
            Cover(controller.found & says[Command.PRECHARGE] & ready),
        ]
        return m


PROOFS = [
    Proof(
        name="boards.sdram_controller.commands",
        spec=CommandsSpec,
        fault=lambda: CommandsSpec(hasty="wr"),
        cover_depth=80,
        reason="any requests, for ever; two banks, rows of two words, times of a few cycles",
    )
]
