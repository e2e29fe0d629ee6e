"""Golden twin of the link behind its line: bytes in, bytes out."""

from .command_executor import CommandExecutor, Port
from .frame_receiver import FrameReceiver

__all__ = ["ByteLink"]


class ByteLink:
    """A board's link, each frame carried out as soon as it is there. Parameters as of `CommandExecutor`."""

    def __init__(self, port: Port, identity: bytes, address_bits: int) -> None:
        self.receiver = FrameReceiver()
        self.executor = CommandExecutor(port, identity, address_bits)

    def receive(self, data: bytes) -> bytes:
        """What the link sends upon `data`."""
        line = b""
        for byte in data:
            frame = self.receiver.receive(byte)
            self.executor.counts.update(self.receiver.dropped)
            self.receiver.dropped.clear()
            if frame is not None:
                line += self.executor.execute(frame) or b""
        return line
