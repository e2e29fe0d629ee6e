"""Byte stuffing and frames against examples of the paper, their inverses, and damage of every kind."""

import random
import zlib

import pytest
from nibblecore.sim.formats.frames import FrameError, stuff, unstuff, unwrap, wrap

EXAMPLES = [
    (b"", b"\x01"),
    (b"\0", b"\x01\x01"),
    (b"\0\0", b"\x01\x01\x01"),
    (b"\x45\0\0\x2c\x4c\x79\0\0\x40\x06\x4f\x37", b"\x02\x45\x01\x04\x2c\x4c\x79\x01\x05\x40\x06\x4f\x37"),
    (bytes(range(1, 255)), b"\xff" + bytes(range(1, 255)) + b"\x01"),
    (bytes(range(1, 255)) + b"\0", b"\xff" + bytes(range(1, 255)) + b"\x01\x01"),
    (bytes(range(1, 256)), b"\xff" + bytes(range(1, 255)) + b"\x02\xff"),
]


@pytest.mark.parametrize(("data", "line"), EXAMPLES)
def test_examples(data, line):
    assert stuff(data) == line and unstuff(line) == data


def test_a_full_run_may_end_a_frame():
    run = bytes(range(1, 255))
    assert unstuff(b"\xff" + run) == run


def test_inverse():
    rng = random.Random(1)
    for _ in range(500):
        values = rng.choice([range(256), range(1, 256), range(2)])
        data = bytes(rng.choice(values) for _ in range(rng.choice([0, 1, 5, 253, 254, 255, 508, 509, 700])))
        line = stuff(data)
        assert 0 not in line and unstuff(line) == data and len(line) <= len(data) + 1 + len(data) // 254
        if data:
            assert unwrap(wrap(data)[:-1]) == data and wrap(data)[-1] == 0


def test_crc_is_the_usual():
    assert zlib.crc32(b"123456789") == 0xCBF43926
    assert unstuff(wrap(b"123456789")[:-1])[-4:] == bytes.fromhex("2639f4cb")


def test_every_bit_counts():
    line = wrap(b"nibbles\0\0!")[:-1]
    for bit in range(8 * len(line)):
        damaged = bytearray(line)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            unwrap(bytes(damaged))
    for size in range(len(line)):
        with pytest.raises(FrameError):
            unwrap(line[:size])


@pytest.mark.parametrize("line", [b"", b"\x01", b"\x03a", b"\x01\x01\x01", wrap(b"a")[:-2]])
def test_no_frame(line):
    with pytest.raises(FrameError):
        unwrap(line)
    with pytest.raises(ValueError, match="at least a byte"):
        wrap(b"")
