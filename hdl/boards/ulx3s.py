"""The ULX3S with an LFE5U-85F."""

from amaranth import ClockDomain, ClockSignal, Elaboratable, Module, ResetSignal
from amaranth.build import Platform
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer
from nibblecore.hdl.config import CambriconqConfig, LtoaqConfig

from .board import Board
from .targets import TARGETS

__all__ = ["Ulx3s"]


class Ulx3s(Elaboratable):
    """`Board` on the pins that amaranth-boards knows: the crystal's 25 MHz, the FTDI chip's serial port, LED 0 for busy and LED 7 for error.
    The button FIRE1 resets.

    Parameters
    ----------
    config : LtoaqConfig or CambriconqConfig
        As of `Board`.
    """

    def __init__(self, config: LtoaqConfig | CambriconqConfig) -> None:
        target = TARGETS["ulx3s"]
        self._board = Board(config, memory_bytes=target.memory_bytes, clock_hz=target.clock_hz, baud=target.baud)

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        m.submodules.board = board = self._board
        serial = platform.request("uart", dir={"rx": "-", "tx": "-", "rts": "-", "dtr": "-"})
        m.submodules.clock = clock = io.Buffer("i", platform.request("clk25", dir="-"))
        m.submodules.button = button = io.Buffer("i", platform.request("button_fire", dir="-"))
        m.submodules.rx = rx = io.Buffer("i", serial.rx)
        m.submodules.tx = tx = io.Buffer("o", serial.tx)
        m.submodules.busy = busy = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.submodules.error = error = io.Buffer("o", platform.request("led", 7, dir="-"))
        m.domains.sync = ClockDomain()
        m.submodules.reset = FFSynchronizer(button.i, ResetSignal())
        m.d.comb += [
            ClockSignal().eq(clock.i),
            board.rx.eq(rx.i),
            tx.o.eq(board.tx),
            busy.o.eq(board.busy),
            error.o.eq(board.error),
        ]
        return m
