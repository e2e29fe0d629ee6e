"""Frames on a line: consistent overhead byte stuffing (Cheshire and Baker, 1999) and a CRC-32, as docs/link.md has them."""

import zlib

__all__ = ["CHECK_BYTES", "DELIMITER", "FrameError", "stuff", "unstuff", "unwrap", "wrap"]

DELIMITER = b"\0"
CHECK_BYTES = 4
LONGEST_RUN = 254


class FrameError(ValueError):
    """No frame looks so, or its CRC does not agree."""


def stuff(data: bytes) -> bytes:
    """`data` without a zero: before each run of bytes up to the next zero, or of 254, a code of its length and one.

    A run of 254 is followed by another code always; at the end of a frame a reader does without it, too.
    """
    out = bytearray()
    *runs, tail = data.split(b"\0")
    for run in (*runs, tail):
        while len(run) >= LONGEST_RUN:
            out += b"\xff" + run[:LONGEST_RUN]
            run = run[LONGEST_RUN:]
        out += bytes([len(run) + 1]) + run
    return bytes(out)


def unstuff(line: bytes) -> bytes:
    """What `stuff` made `line` of. Raises FrameError if a run is shorter than its code says, or there is a zero."""
    if 0 in line:
        raise FrameError("a zero within a frame")
    out, place, zero = bytearray(), 0, False
    while place < len(line):
        code = line[place]
        run = line[place + 1 : place + code]
        if len(run) != code - 1:
            raise FrameError(f"a run of {code - 1} bytes ends after {len(run)}")
        out += (b"\0" if zero else b"") + run
        zero, place = code - 1 < LONGEST_RUN, place + code
    return bytes(out)


def wrap(frame: bytes) -> bytes:
    """A frame as it goes over the line, its delimiter included. ValueError if it has no byte."""
    if not frame:
        raise ValueError("a frame has at least a byte")
    return stuff(frame + zlib.crc32(frame).to_bytes(CHECK_BYTES, "little")) + DELIMITER


def unwrap(line: bytes) -> bytes:
    """The frame that came between two delimiters. Raises FrameError."""
    checked = unstuff(line)
    if len(checked) <= CHECK_BYTES:
        raise FrameError(f"{len(checked)} bytes are no frame")
    frame, check = checked[:-CHECK_BYTES], int.from_bytes(checked[-CHECK_BYTES:], "little")
    if zlib.crc32(frame) != check:
        raise FrameError(f"the CRC is {zlib.crc32(frame):#010x}, not {check:#010x}")
    return frame
