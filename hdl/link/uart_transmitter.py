"""Bytes onto an asynchronous serial line."""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .uart_receiver import PHASE_BITS, phase_step

__all__ = ["UartTransmitter"]


class UartTransmitter(wiring.Component):
    """Sends 8 data bits, no parity, least significant bit first, one stop bit.

    Latency: the start bit begins in the cycle after a byte was taken. Throughput: a byte in 10 bits, and one cycle.

    Parameters
    ----------
    clock_hz, baud : int
        As of `UartReceiver`.

    Members
    -------
    data : In(stream of 8)
    tx : Out(1)
        The line, 1 when idle.
    """

    def __init__(self, clock_hz: int, baud: int) -> None:
        self.step = phase_step(clock_hz, baud)
        super().__init__({"data": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        phase = Signal(PHASE_BITS)
        advanced = Signal(PHASE_BITS + 1)
        # What is still to be sent, the bit on the line not counted: data and stop bit, then nothing but the mark that was above them.
        left = Signal(10)
        busy = Signal()
        m.d.comb += [advanced.eq(phase + self.step), self.data.ready.eq(~busy)]
        with m.If(~busy):
            m.d.sync += phase.eq(0)
            with m.If(self.data.valid):
                m.d.sync += [busy.eq(1), self.tx.eq(0), left.eq(Cat(self.data.payload, Const(0b11, 2)))]
        with m.Else():
            m.d.sync += phase.eq(advanced)
            with m.If(advanced[-1]):
                m.d.sync += [self.tx.eq(left[0]), left.eq(left >> 1), busy.eq(left != 1)]
        return m
