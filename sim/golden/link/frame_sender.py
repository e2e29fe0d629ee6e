"""Golden twin of the frame sender: it keeps frames and wraps them."""

from nibblecore.sim.formats.frames import wrap

__all__ = ["FRAME_BYTES", "SLOTS", "FrameSender"]

FRAME_BYTES, SLOTS = 508, 4


class FrameSender:
    """`SLOTS` frames."""

    def __init__(self) -> None:
        self.slots: list[bytes] = [b""] * SLOTS

    def send(self, slot: int, frame: bytes) -> bytes:
        """`frame` as it goes over the line; it is kept in `slot`."""
        self.slots[slot] = frame
        return self.again(slot)

    def again(self, slot: int) -> bytes:
        return wrap(self.slots[slot])
