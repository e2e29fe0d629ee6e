"""Memory commands of any length into AXI4 bursts."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .axi4 import PAGE_BYTES
from .streams import command_layout

__all__ = ["BurstSplitter", "check_burst"]


def check_burst(bus_bytes: int, max_burst: int) -> None:
    """Raise ValueError unless `max_burst` beats can be the longest burst."""
    if max_burst not in (2, 4, 8, 16, 32, 64, 128, 256) or max_burst * bus_bytes > PAGE_BYTES:
        raise ValueError(f"max_burst must be a power of two in 2..256 and at most {PAGE_BYTES} bytes long, not {max_burst}")


class BurstSplitter(wiring.Component):
    """Splits commands into bursts that end at multiples of ``max_burst`` beats in memory, or with their command.

    Since ``max_burst`` beats divide a 4 KiB page, no burst crosses one, and every burst but the first of a command is
    naturally aligned. A command of no beats is taken and yields no burst. Addresses wrap at 2³².

    Latency: a command's first burst is offered the cycle after the command was taken.
    Throughput: one burst a cycle, also across commands; a command of no beats takes a cycle.

    Parameters
    ----------
    bus_bytes : int
        Bytes in a beat, a power of two.
    max_burst : int
        Beats in the longest burst: a power of two in 2..256, at most a page.

    Members
    -------
    command : In(stream of ``command_layout()``)
    burst : Out(stream of ``{address: 32, length: log2(max_burst)}``)
        ``address`` in bytes; ``length`` is the number of beats less one, as in ARLEN. The payload is held until taken or dropped.
    drop : In(1)
        While high the command in progress and all that are offered are discarded, and no burst is offered.
    idle : Out(1)
        No command is in progress.
    """

    def __init__(self, bus_bytes: int, max_burst: int) -> None:
        check_burst(bus_bytes, max_burst)
        self.bus_bytes = bus_bytes
        self.max_burst = max_burst
        length_bits = (max_burst - 1).bit_length()
        super().__init__(
            {
                "command": In(stream.Signature(command_layout())),
                "burst": Out(stream.Signature(data.StructLayout({"address": 32, "length": length_bits}))),
                "drop": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        offset_bits = (self.bus_bytes - 1).bit_length()
        beat = Signal(32 - offset_bits)  # address in beats
        remaining = Signal(16)
        active = Signal()

        to_boundary = Signal(range(self.max_burst))  # less one
        length = Signal(range(self.max_burst))  # less one
        last = Signal()
        m.d.comb += [
            to_boundary.eq(~beat[: len(to_boundary)]),
            last.eq(remaining <= to_boundary + 1),
            length.eq(Mux(last, remaining - 1, to_boundary)),
            self.burst.payload.address.eq(Cat(Const(0, offset_bits), beat)),
            self.burst.payload.length.eq(length),
            self.burst.valid.eq(active & ~self.drop),
            self.idle.eq(~active),
        ]

        taken = Signal()
        m.d.comb += [taken.eq(self.burst.valid & self.burst.ready), self.command.ready.eq(~active | (taken & last) | self.drop)]
        with m.If(taken):
            m.d.sync += [beat.eq(beat + length + 1), remaining.eq(remaining - length - 1)]
        with m.If(self.command.ready):
            m.d.sync += [
                beat.eq(self.command.payload.address[offset_bits:]),
                remaining.eq(self.command.payload.beats),
                active.eq(self.command.valid & (self.command.payload.beats != 0) & ~self.drop),
            ]
        return m
