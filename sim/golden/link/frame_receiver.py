"""Golden twin of the frame receiver: what becomes of the bytes of a line."""

from collections import Counter

from nibblecore.sim.formats.frames import CHECK_BYTES, FrameError, unstuff, unwrap

__all__ = ["FrameReceiver"]


class FrameReceiver:
    """Keeps what came since the last delimiter.

    Parameters
    ----------
    depth : int or None
        Bytes of frames that wait; None where they are taken at once.

    Members
    -------
    dropped : Counter
        Frames by what was wrong with them: ``malformed``, ``wrong``, ``full``.
    waiting : int
        Bytes of frames that were received and not yet `take`\\ n.
    """

    def __init__(self, depth: int | None = None) -> None:
        self.depth = depth
        self.dropped: Counter[str] = Counter()
        self.waiting = 0
        self._line = bytearray()
        self._broken = False

    def receive(self, byte: int) -> bytes | None:
        """The frame that ends with this byte, if one does."""
        if byte:
            self._line.append(byte)
            return None
        line, broken = bytes(self._line), self._broken
        self._line.clear()
        self._broken = False
        if not line and not broken:
            return None
        try:
            whole = not broken and len(unstuff(line)) > CHECK_BYTES
        except FrameError:
            whole = False
        if not whole:
            self.dropped["malformed"] += 1
            return None
        try:
            frame = unwrap(line)
        except FrameError:
            self.dropped["wrong"] += 1
            return None
        if self.depth is not None and self.waiting + len(frame) > self.depth:
            self.dropped["full"] += 1
            return None
        self.waiting += len(frame)
        return frame

    def lose(self) -> None:
        """A byte did not arrive whole."""
        self._broken = True

    def take(self, size: int) -> None:
        """So many bytes of frames that waited were taken."""
        self.waiting -= size
