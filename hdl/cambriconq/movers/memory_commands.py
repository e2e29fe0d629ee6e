"""The beats that hold a shape's words in memory, as commands for a DMA."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout
from nibblecore.hdl.cambriconq.program.job import Place, Shape

from .walk import Walk

__all__ = ["WORD_BYTES", "MemoryCommands", "check_bus"]

WORD_BYTES = 4


def check_bus(bus_bytes: int) -> None:
    """Raise ValueError unless a beat of `bus_bytes` bytes holds two words or more."""
    if bus_bytes not in (8, 16, 32, 64, 128):
        raise ValueError(f"bus_bytes must be a power of two in 8..128, not {bus_bytes}")


class MemoryCommands(wiring.Component):
    """One command for each row of words that lie side by side (col = 4), one for each element otherwise.

    A row's command covers every beat that holds one of its words and no other; an element's is one beat, also where the beat before
    held the element as well. An empty shape yields nothing.

    Latency: the first command the cycle after ``start``. Throughput: a command a cycle.

    Parameters
    ----------
    bus_bytes : int
        Bytes in a beat, a power of two in 8..128; ValueError otherwise.

    Members
    -------
    start : In(1)
        Not while a command is on offer.
    shape : In(Shape)
    place : In(Place)
        In bytes, multiples of 4. Both constant from ``start`` until the last command is taken.
    command : Out(stream of `command_layout`)
        The address is that of a beat.
    """

    def __init__(self, bus_bytes: int) -> None:
        check_bus(bus_bytes)
        self.bus_bytes = bus_bytes
        super().__init__(
            {"start": In(1), "shape": In(Shape), "place": In(Place), "command": Out(stream.Signature(command_layout()))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walk = walk = Walk(32)
        lanes, beat_bits = self.bus_bytes // WORD_BYTES, self.bus_bytes.bit_length() - 1
        contiguous = Signal()
        row_end = Signal(17)  # one beyond, in words from the first beat on
        address = walk.o.payload.address
        m.d.comb += [
            contiguous.eq(self.place.col == WORD_BYTES),
            walk.start.eq(self.start),
            walk.shape.rows.eq(self.shape.rows),
            walk.shape.cols.eq(Mux(contiguous, self.shape.cols != 0, self.shape.cols)),
            walk.place.eq(self.place),
            row_end.eq(address[2:beat_bits] + self.shape.cols),
            self.command.valid.eq(walk.o.valid),
            self.command.payload.address.eq(Cat(Const(0, beat_bits), address[beat_bits:])),
            self.command.payload.beats.eq(Mux(contiguous, (row_end + (lanes - 1)) >> (beat_bits - 2), 1)),
            walk.o.ready.eq(self.command.ready),
        ]
        return m
