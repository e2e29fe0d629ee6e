"""The one memory component: replace it, and every memory of the accelerators is a macro."""

from amaranth import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

__all__ = ["Memory"]


@emit_once
class Memory(wiring.Component):
    """One write port, one synchronous read port, no initial contents, no write-to-read bypass.

    Reading the address that is being written in the same cycle returns either value: callers must not depend on it.

    Latency: data appear `READ_LATENCY` = 1 cycle after ``read_enable``, and hold until the next read. Throughput: a read and a write a cycle.

    Parameters
    ----------
    width : int
        Bits of a word, at least 1.
    depth : int
        Words, at least 2.

    Members
    -------
    write_enable : In(1)
    write_address : In(⌈log2 depth⌉)
        Legal below ``depth``, like ``read_address``.
    write_data : In(width)
    read_enable : In(1)
    read_address : In(⌈log2 depth⌉)
    read_data : Out(width)
        The word of the last ``read_address`` that came with ``read_enable``.
    """

    READ_LATENCY = 1

    def __init__(self, width: int, depth: int) -> None:
        if width < 1 or depth < 2:
            raise ValueError(f"a memory needs a width of at least 1 and a depth of at least 2, not {width} × {depth}")
        self.width = width
        self.depth = depth
        address_bits = (depth - 1).bit_length()
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(address_bits),
                "write_data": In(width),
                "read_enable": In(1),
                "read_address": In(address_bits),
                "read_data": Out(width),
            }
        )

    @property
    def module_name(self) -> str:
        return f"memory_{self.depth}x{self.width}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.storage = storage = memory.Memory(shape=self.width, depth=self.depth, init=[])
        write = storage.write_port()
        read = storage.read_port()
        m.d.comb += [
            write.en.eq(self.write_enable),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            read.en.eq(self.read_enable),
            read.addr.eq(self.read_address),
            self.read_data.eq(read.data),
        ]
        return m
