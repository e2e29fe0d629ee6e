"""How long the bytes of an exchange take on a line that carries both directions at once, without a line."""

from collections import deque

from .link import Line

__all__ = ["TimedLine"]

_LINE_BITS = 10
"""Of a byte."""


class TimedLine:
    """A `Line` before another that answers at once, which keeps the time as if bytes took theirs, at several rates side by side.

    A frame is with the board when its last byte has come, the board answers it then, and the host has the answer when that one's last byte
    has come. Neither takes any time itself: what the accelerator works and the host computes is not in it.

    Parameters
    ----------
    line : Line
        Answers each frame while it is written, as `FunctionalBoard` does.
    rates : tuple of int
        In baud.

    Members
    -------
    seconds : dict of float
        By rate, since the beginning.
    """

    def __init__(self, line: Line, rates: tuple[int, ...]) -> None:
        self.seconds = dict.fromkeys(rates, 0.0)
        self._line = line
        self._there = dict.fromkeys(rates, 0.0)
        self._back = dict.fromkeys(rates, 0.0)
        self._coming: deque[tuple[bytes, dict[int, float]]] = deque()

    def write(self, data: bytes) -> None:
        self._line.write(data)
        answer = self._line.read()
        for rate, now in self.seconds.items():
            self._there[rate] = max(self._there[rate], now) + len(data) * _LINE_BITS / rate
            self._back[rate] = max(self._back[rate], self._there[rate]) + len(answer) * _LINE_BITS / rate
        if answer:
            self._coming.append((answer, dict(self._back)))

    def read(self) -> bytes:
        if not self._coming:
            return b""
        data, arrived = self._coming.popleft()
        self.seconds = {rate: max(now, arrived[rate]) for rate, now in self.seconds.items()}
        return data

    def close(self) -> None:
        self._line.close()
