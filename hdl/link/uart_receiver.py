"""Bytes from an asynchronous serial line."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PHASE_BITS", "UartReceiver", "phase_step"]

PHASE_BITS = 16
"""Of the counter whose wrap is the length of a bit."""

_LEAST_CYCLES = 6
"""Of a bit: the start bit is found up to a cycle late, and a line's edges may be off by another."""


def phase_step(clock_hz: int, baud: int) -> int:
    """What a phase of `PHASE_BITS` bits advances by in a cycle, so that it wraps once a bit.

    ValueError where a bit would have fewer than six cycles, or where the rate that comes of it is off by more than 1 % (low rates from
    fast clocks: more cycles than `PHASE_BITS` bits can count).
    """
    if not 0 < baud * _LEAST_CYCLES <= clock_hz:
        raise ValueError(f"{baud} baud need a clock of at least {_LEAST_CYCLES} cycles a bit, not one of {clock_hz} Hz")
    step = round((baud << PHASE_BITS) / clock_hz)
    if abs(step * clock_hz - (baud << PHASE_BITS)) * 100 > baud << PHASE_BITS:
        raise ValueError(f"{baud} baud are too slow for a clock of {clock_hz} Hz")
    return step


class UartReceiver(wiring.Component):
    """Receives 8 data bits, no parity, least significant bit first, one stop bit or more.

    The line is looked at in the middle of each bit. What is no start bit there is a disturbance and is passed over; a frame whose stop bit
    is 0 is lost, and the next one begins after the line was 1 again.

    Latency: ``received`` comes two or three cycles after the middle of the stop bit. Throughput: a byte in 9.5 bits or more; whoever
    listens takes each in its cycle.

    Parameters
    ----------
    clock_hz, baud : int
        At least six cycles a bit; ValueError otherwise (see `phase_step`).

    Members
    -------
    rx : In(1)
        The line, asynchronous to the clock, 1 when idle.
    data : Out(8)
        The byte, in the cycle of ``received``.
    received : Out(1)
        For one cycle, with each byte.
    broken : Out(1)
        For one cycle, with each byte whose stop bit is 0.
    """

    def __init__(self, clock_hz: int, baud: int) -> None:
        self.step = phase_step(clock_hz, baud)
        super().__init__({"rx": In(1), "data": Out(8), "received": Out(1), "broken": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        settling = Signal(init=1)
        line = Signal(init=1)
        m.d.sync += [settling.eq(self.rx), line.eq(settling)]

        phase = Signal(PHASE_BITS)
        wrap = Signal()
        advanced = Signal(PHASE_BITS + 1)
        m.d.comb += [advanced.eq(phase + self.step), wrap.eq(advanced[-1])]

        bits = Signal(8)
        place = Signal(range(10))
        m.d.comb += self.data.eq(bits)
        m.d.sync += [self.received.eq(0), self.broken.eq(0)]
        with m.FSM():
            with m.State("IDLE"):
                # The start bit began up to a cycle before it is seen here.
                m.d.sync += [phase.eq((1 << (PHASE_BITS - 1)) + self.step), place.eq(0)]
                with m.If(~line):
                    m.next = "BITS"
            with m.State("BITS"):
                m.d.sync += phase.eq(advanced)
                with m.If(wrap):
                    m.d.sync += place.eq(place + 1)
                    with m.If((place == 0) & line):
                        m.next = "IDLE"
                    with m.Elif(place == 9):
                        m.d.sync += [self.received.eq(line), self.broken.eq(~line)]
                        m.next = "RECOVER"
                    with m.Elif(place != 0):
                        m.d.sync += bits.eq(Cat(bits[1:], line))
            with m.State("RECOVER"), m.If(line):
                m.next = "IDLE"
        return m
