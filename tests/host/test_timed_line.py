"""Bytes take their time, and those of both directions at once."""

import pytest
from nibblecore.hdl.config import TINY
from nibblecore.sim.host.functional_board import FunctionalBoard
from nibblecore.sim.host.link import LinkTransport
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport
from nibblecore.sim.host.timed_line import TimedLine

RATE = 1_000_000
BYTE = 10 / RATE


class Echo:
    """Answers what is written with as many bytes as its first one says."""

    def __init__(self):
        self.coming = b""

    def write(self, data):
        self.coming += bytes(data[0])

    def read(self):
        data, self.coming = self.coming, b""
        return data

    def close(self):
        self.closed = True


def test_an_answer_waits_for_its_question_and_for_those_before_it():
    line = TimedLine(Echo(), (RATE, 2 * RATE))
    line.write(bytes([7, 0, 0]))
    line.write(bytes([2] + [0] * 19))
    assert line.seconds == {RATE: 0, 2 * RATE: 0}
    assert line.read() == bytes(7) and line.seconds[RATE] == pytest.approx(10 * BYTE)
    # On the way while the first was answered: 3 + 20 bytes, then 2.
    assert line.read() == bytes(2) and line.seconds[RATE] == pytest.approx(25 * BYTE)
    assert line.read() == b"" and line.seconds[2 * RATE] == pytest.approx(12.5 * BYTE)
    line.write(bytes([0, 0]))
    line.write(bytes([30]))
    assert line.read() == bytes(30) and line.seconds[RATE] == pytest.approx((25 + 3 + 30) * BYTE)
    # Answers queue up behind one another.
    line.write(bytes([40]))
    line.write(bytes([50]))
    line.read()
    assert line.read() == bytes(50) and line.seconds[RATE] == pytest.approx((58 + 1 + 40 + 50) * BYTE)


def test_close():
    echo = Echo()
    TimedLine(echo, (RATE,)).close()
    assert echo.closed


def transport():
    line = TimedLine(FunctionalBoard(TINY, FunctionalTransport(TINY, 1 << 18)), (RATE,))
    made = LinkTransport(line)
    return made, line, (line.seconds[RATE], made.sent, made.received)


@pytest.mark.parametrize("size", [1000, 40_000])
def test_a_direction_at_a_time_takes_its_bytes(size):
    """But for the frames whose answers are awaited, the other direction rests."""
    made, line, (began, sent, _) = transport()
    made.write_memory(0, bytes(size))
    made.flush()
    written = line.seconds[RATE]
    assert (made.sent - sent) * BYTE <= written - began <= (made.sent - sent) * BYTE * 1.03
    received = made.received
    made.read_memory(0, size)
    assert (made.received - received) * BYTE <= line.seconds[RATE] - written <= ((made.received - received) + 100) * BYTE


@pytest.mark.parametrize(("written", "read"), [(20_000, 20_000), (20_000, 8_000), (8_000, 20_000)])
def test_both_directions_at_once_take_as_long_as_the_longer(written, read):
    made, line, (began, sent, received) = transport()
    taken = made.read_later(100_000, read)
    made.write_memory(0, bytes(written))
    assert made.sent == sent
    made.flush()
    assert taken() == bytes(read)
    longer = max(made.sent - sent, made.received - received)
    assert longer * BYTE <= line.seconds[RATE] - began <= longer * BYTE * 1.1
