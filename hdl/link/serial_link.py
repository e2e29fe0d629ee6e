"""The link with its line: two wires."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import connect

from .byte_link import ByteLink
from .command_executor import connect_service, service
from .uart_receiver import UartReceiver
from .uart_transmitter import UartTransmitter

__all__ = ["SerialLink"]


class SerialLink(wiring.Component):
    """`ByteLink` behind `UartReceiver` and `UartTransmitter`.

    Latency: that of its parts. Throughput: that of the line, a byte in ten bits each way; its parts are faster.

    Parameters
    ----------
    baud : int
        As of `UartReceiver`.
    memory_bytes, clock_hz, build, address_bits
        As of `CommandExecutor`.

    Members
    -------
    rx : In(1)
    tx : Out(1)
    memory_request : Out(stream of ``memory_request_layout()``)
    memory_response : In(stream of 8)
    m_axi : Out(AxiLite(address_bits))
    irq : In(1)
        As of `CommandExecutor`.
    """

    def __init__(self, baud: int, memory_bytes: int, clock_hz: int, build: bytes, address_bits: int) -> None:
        self.baud = baud
        self.clock_hz = clock_hz
        self.arguments = (memory_bytes, clock_hz, build, address_bits)
        super().__init__({"rx": In(1), "tx": Out(1, init=1), **service(address_bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self.clock_hz, self.baud)
        m.submodules.transmitter = transmitter = UartTransmitter(self.clock_hz, self.baud)
        m.submodules.link = link = ByteLink(*self.arguments)
        connect(m, link.line, transmitter.data)
        connect_service(m, link, self)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            link.data.eq(receiver.data),
            link.received.eq(receiver.received),
            link.broken.eq(receiver.broken),
        ]
        return m
