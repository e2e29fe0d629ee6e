"""The bursts of a command are its beats, in order and without gaps, and none crosses 4 KiB."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.bus.burst_splitter import BurstSplitter
from nibblecore.hdl.bus.streams import command_layout, connect

from .channel import assert_holds

__all__ = ["PROOFS"]


class SplitterSpec(wiring.Component):
    """Keeps the command in hand beside the splitter and compares every burst with what is left of it."""

    def __init__(self, block: type[BurstSplitter], bus_bytes: int, max_burst: int) -> None:
        self.block = block
        self.bus_bytes = bus_bytes
        self.max_burst = max_burst
        super().__init__({"command": In(stream.Signature(command_layout())), "burst_ready": In(1), "drop": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.splitter = splitter = self.block(self.bus_bytes, self.max_burst)
        burst = splitter.burst.payload
        address, left, beats = Signal(32), Signal(16), Signal(range(self.max_burst + 1))
        connect(m, self.command, splitter.command)
        m.d.comb += [splitter.burst.ready.eq(self.burst_ready), splitter.drop.eq(self.drop), beats.eq(burst.length + 1)]
        with m.If(splitter.burst.valid & self.burst_ready):
            m.d.sync += [address.eq(address + beats * self.bus_bytes), left.eq(left - beats)]
        with m.If(self.drop):
            m.d.sync += left.eq(0)
        with m.Elif(self.command.valid & self.command.ready):
            m.d.sync += [address.eq(self.command.payload.address & ~(self.bus_bytes - 1)), left.eq(self.command.payload.beats)]
        assert_holds(m, "burst", splitter.burst.valid, self.burst_ready, burst.address, burst.length, unless=self.drop)
        finished = (left == 0) | (splitter.burst.valid & self.burst_ready & (beats == left)) | self.drop
        m.d.comb += [
            Assert(splitter.burst.valid == ((left != 0) & ~self.drop)),
            Assert(splitter.idle == (left == 0)),
            Assert(self.command.ready == finished),
            Cover(splitter.burst.valid & (beats == left) & (left > 2) & (address[:12] == 4096 - self.bus_bytes * beats)),
        ]
        with m.If(splitter.burst.valid):
            m.d.comb += [
                Assert(burst.address == address),
                Assert(beats <= left),
                Assert(burst.address[:12] + beats * self.bus_bytes <= 4096),
                # A burst ends early only where the next one is aligned.
                Assert((beats == left) | ((burst.address + beats * self.bus_bytes) % (self.max_burst * self.bus_bytes) == 0)),
            ]
        return m


class CrossingSplitter(BurstSplitter):
    """Ends bursts by their length alone."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.burst.payload.length.eq(Mux(self.burst.payload.address[3], self.max_burst - 1, 0))
        return m


PROOFS = [
    Proof(
        name="bus.burst_splitter.bursts",
        spec=lambda: SplitterSpec(BurstSplitter, 8, 16),
        fault=lambda: SplitterSpec(CrossingSplitter, 8, 16),
        reason="every command, address and number of beats",
    )
]
