"""A board's design on its pins."""

from typing import Any

from amaranth import ClockDomain, ClockSignal, Const, Elaboratable, Module, ResetSignal, Signal, Value
from amaranth.build import Attrs, Pins, Platform, Resource, Subsignal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer
from nibblecore.hdl.config import CambriconqConfig, LtoaqConfig

from .board import Board
from .targets import Target

__all__ = ["Pinned", "divided"]


def divided(m: Module, clock: Value, divisor: int) -> Signal:
    """A clock of an even part of another's frequency, high for half of the time. A counter instead of a PLL: the same on all devices."""
    m.domains.crystal = ClockDomain(reset_less=True, local=True)
    count = Signal(range(divisor // 2))
    slow = Signal(name="divided")
    m.d.comb += ClockSignal("crystal").eq(clock)
    with m.If(count == divisor // 2 - 1):
        m.d.crystal += [count.eq(0), slow.eq(~slow)]
    with m.Else():
        m.d.crystal += count.eq(count + 1)
    return slow


class Pinned(Elaboratable):
    """`Board` on the pins that amaranth-boards knows: its clock, or an even part of the frequency, its serial port, its SDRAM if memory is
    there, and its lamps and its reset button where it has them.

    Parameters
    ----------
    target : Target
    config : LtoaqConfig or CambriconqConfig
        As of `Board`.
    """

    def __init__(self, target: Target, config: LtoaqConfig | CambriconqConfig) -> None:
        self.target = target
        self._board = Board(
            config, memory_bytes=target.memory_bytes, clock_hz=target.clock_hz, baud=target.baud, sdram=target.timed_sdram
        )

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        m.submodules.board = board = self._board
        self._clock(m, platform)
        serial = self._serial(platform)
        m.submodules.rx = rx = io.Buffer("i", serial.rx)
        m.submodules.tx = tx = io.Buffer("o", serial.tx)
        m.d.comb += [board.rx.eq(rx.i), tx.o.eq(board.tx)]
        if self.target.sdram:
            self._sdram(m, platform, board.sdram)
        for number, lamp in zip(self.target.lamps, (board.busy, board.error), strict=False):
            buffer = io.Buffer("o", platform.request("led", number, dir="-"))
            m.submodules[f"led{number}"] = buffer
            m.d.comb += buffer.o.eq(lamp)
        return m

    def _clock(self, m: Module, platform: Platform) -> None:
        m.domains.sync = ClockDomain()
        m.submodules.clock = clock = io.Buffer("i", platform.request(platform.default_clk, dir="-"))
        divisor = round(platform.default_clk_frequency / self.target.clock_hz)
        if divisor == 1:
            m.d.comb += ClockSignal().eq(clock.i)
        else:
            part = divided(m, clock.i, divisor)
            m.d.comb += ClockSignal().eq(part)
            platform.add_clock_constraint(part, self.target.clock_hz)
        button = self.target.button or ((platform.default_rst, 0) if platform.default_rst else None)
        if button:
            m.submodules.button = pressed = io.Buffer("i", platform.request(*button, dir="-"))
            m.submodules.reset = FFSynchronizer(pressed.i, ResetSignal())

    def _serial(self, platform: Platform) -> Any:
        if self.target.serial:
            connector, rx, tx = self.target.serial
            pins = [Subsignal(name, Pins(pin, dir=way, conn=connector)) for name, pin, way in (("rx", rx, "i"), ("tx", tx, "o"))]
            platform.add_resources([Resource("uart", 0, *pins, Attrs(IO_TYPE="LVCMOS33"))])
        return platform.request("uart", dir={part.name: "-" for part in platform.lookup("uart").ios})

    def _sdram(self, m: Module, platform: Platform, board: Any) -> None:
        """Registers in the pads, and as the chip's clock the design's, inverted: half a cycle for what is said, and for what is read."""
        chip = platform.request("sdram", dir={part.name: "-" for part in platform.lookup("sdram").ios})
        m.submodules.sdram_clk = clock = io.DDRBuffer("o", chip.clk)
        m.d.comb += clock.o.eq(0b10)
        ras, cas, we = Value.cast(board.command)
        for name, value in (
            ("clk_en", Const(1)), ("cs", Const(1)), ("ras", ras), ("cas", cas), ("we", we),
            ("ba", board.bank), ("a", board.address), ("dqm", board.mask),
        ):  # fmt: skip
            m.submodules[f"sdram_{name}"] = pad = io.FFBuffer("o", getattr(chip, name))
            m.d.comb += pad.o.eq(value)
        m.submodules.sdram_dq = data = io.FFBuffer("io", chip.dq)
        m.d.comb += [data.o.eq(board.data_out), data.oe.eq(board.drive), board.data_in.eq(data.i)]
