"""The link behind its line: bytes in, bytes out."""

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import connect

from .command_executor import CommandExecutor, connect_service, service
from .frame_receiver import FrameReceiver
from .frame_sender import FrameSender

__all__ = ["DEPTH", "ByteLink"]

DEPTH = 2048
"""Bytes of frames that wait for their turn: `SLOTS` of the longest."""


class ByteLink(wiring.Component):
    """Serves an accelerator's registers, its interrupt and its memory to a host that sends frames (docs/link.md).

    Whatever arrives, the link stays at its work: a frame that is not right is dropped, one that asks for what cannot be had is answered
    so, and only a memory or an accelerator that does not answer holds it up.

    Latency: `FrameReceiver`'s, `CommandExecutor`'s and `FrameSender`'s, one after the other. Throughput: a byte a cycle in; otherwise theirs.

    Parameters
    ----------
    memory_bytes, clock_hz, build, address_bits
        As of `CommandExecutor`.

    Members
    -------
    data, received, broken : In
        Bytes from the host, as of `FrameReceiver`.
    line : Out(stream of 8)
        Bytes to the host.
    memory_request : Out(stream of ``memory_request_layout()``)
    memory_response : In(stream of 8)
    m_axi : Out(AxiLite(address_bits))
    irq : In(1)
        As of `CommandExecutor`.
    """

    def __init__(self, memory_bytes: int, clock_hz: int, build: bytes, address_bits: int) -> None:
        self.arguments = (memory_bytes, clock_hz, build, DEPTH, address_bits)
        super().__init__(
            {"data": In(8), "received": In(1), "broken": In(1), "line": Out(stream.Signature(8)), **service(address_bits)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = FrameReceiver(DEPTH)
        m.submodules.executor = executor = CommandExecutor(*self.arguments)
        m.submodules.sender = sender = FrameSender()
        connect(m, receiver.frame, executor.frame)
        connect(m, executor.byte, sender.byte)
        connect(m, sender.line, self.line)
        connect_service(m, executor, self)
        m.d.comb += [
            receiver.data.eq(self.data),
            receiver.received.eq(self.received),
            receiver.broken.eq(self.broken),
            *(getattr(executor, name).eq(getattr(receiver, name)) for name in ("malformed", "wrong", "full")),
            *(getattr(sender, name).eq(getattr(executor, name)) for name in ("slot", "start", "finish", "again")),
            executor.room.eq(sender.room),
            executor.idle.eq(sender.idle),
        ]
        return m
