"""The bursts of an AXI4 port, a direction at a time, as beats of a memory."""

from dataclasses import dataclass
from typing import Any

from amaranth import Module, Signal
from nibblecore.hdl.bus.axi4 import PAGE_BYTES

__all__ = ["Burst", "bursts"]


@dataclass(frozen=True)
class Burst:
    """The burst at work of a direction: its next beat."""

    valid: Signal
    word: Signal
    last: Signal
    outside: Signal
    step: Signal
    """For the memory to raise: the beat is done."""


def bursts(m: Module, axi: Any, channel: str, words: int) -> Burst:
    """Takes the bursts of address channel ``"ar"`` or ``"aw"`` of a port, one after the other; one waits. Memory has so many `words`."""
    address, length, valid, ready = (getattr(axi, f"{channel}{part}") for part in ("addr", "len", "valid", "ready"))
    bus_bytes = axi.signature.bus_bytes
    word_bits = 32 - (bus_bytes - 1).bit_length()
    page_bits = (PAGE_BYTES // bus_bytes - 1).bit_length()
    waits = Signal(name=f"{channel}_waits")
    first = Signal(word_bits, name=f"{channel}_first")
    count = Signal(8, name=f"{channel}_count")
    works = Signal(name=f"{channel}_works")
    word = Signal(word_bits, name=f"{channel}_word")
    left = Signal(8, name=f"{channel}_left")
    last = Signal(name=f"{channel}_last")
    outside = Signal(name=f"{channel}_outside")
    step = Signal(name=f"{channel}_step")
    m.d.comb += [ready.eq(~waits), last.eq(left == 0)]
    with m.If(valid & ready):
        m.d.sync += [waits.eq(1), first.eq(address >> (32 - word_bits)), count.eq(length)]
    with m.If(~works | (step & last)):
        m.d.sync += [works.eq(waits), word.eq(first), left.eq(count), outside.eq(first >= words)]
        with m.If(waits):
            m.d.sync += waits.eq(0)
    with m.Elif(step):
        m.d.sync += [word[:page_bits].eq(word[:page_bits] + 1), left.eq(left - 1)]
    return Burst(works, word, last, outside, step)
