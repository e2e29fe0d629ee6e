"""Frames out of the bytes of a line: only whole and right ones, one after the other."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.memory import Memory

__all__ = ["CHECK_BYTES", "DELIMITER", "FrameReceiver", "frame_layout"]

DELIMITER = 0
"""The byte between frames; COBS leaves none within."""

CHECK_BYTES = 4
"""Of the CRC-32 at the end of a frame."""


def frame_layout() -> data.StructLayout:
    """A byte of a frame, and whether it is the frame's last."""
    return data.StructLayout({"byte": 8, "last": 1})


class FrameReceiver(wiring.Component):
    """Undoes the byte stuffing (COBS), checks the CRC-32, and keeps frames until they are asked for.

    A frame on the line is its bytes, then their CRC-32 (ISO-HDLC, as of Ethernet and zip; least significant byte first), stuffed, then a
    `DELIMITER`. A frame with an error is dropped whole, and reception goes on behind the next delimiter; delimiters without anything between
    them are no frames. What is lost is counted by whoever counts the strobes.

    Latency: a frame is offered two cycles after its delimiter, behind those before it. Throughput: a byte a cycle in, one a cycle out.

    Parameters
    ----------
    depth : int
        Bytes of frames, without their CRC, that wait to be taken: a power of two, at least 16. ValueError otherwise.

    Members
    -------
    data : In(8)
    received : In(1)
        ``data`` is a byte of the line; it is taken in this cycle.
    broken : In(1)
        A byte was lost: the frame that it belonged to is malformed.
    frame : Out(stream of ``frame_layout()``)
        Bytes of right frames, without the CRC; at least one each.
    malformed : Out(1)
        For one cycle: dropped, because no stuffing looks so, or it has no byte beside the CRC, or a byte was ``broken``.
    wrong : Out(1)
        For one cycle: dropped, because its CRC does not agree.
    full : Out(1)
        For one cycle: a right frame was dropped, because it found no room.
    """

    def __init__(self, depth: int) -> None:
        if depth < 16 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two of at least 16, not {depth}")
        self.depth = depth
        super().__init__(
            {
                "data": In(8),
                "received": In(1),
                "broken": In(1),
                "frame": Out(stream.Signature(frame_layout())),
                "malformed": Out(1),
                "wrong": Out(1),
                "full": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=8).create()

        # Stuffing: a code of n stands for n − 1 bytes as they are and then a zero, which is none at a frame's end and behind a code of 255.
        left = Signal(8)
        zero_next = Signal()
        within = Signal()
        ends = Signal()
        is_code = Signal()
        yields = Signal()
        m.d.comb += [
            ends.eq(self.received & (self.data == DELIMITER)),
            is_code.eq(self.received & (self.data != DELIMITER) & (left == 0)),
            yields.eq(self.received & (self.data != DELIMITER) & ((left != 0) | zero_next)),
        ]
        with m.If(ends):
            m.d.sync += [left.eq(0), zero_next.eq(0), within.eq(0)]
        with m.Elif(is_code):
            m.d.sync += [left.eq(self.data - 1), zero_next.eq(self.data != 0xFF), within.eq(1)]
        with m.Elif(self.received):
            m.d.sync += left.eq(left - 1)

        m.d.comb += [crc.data.eq(Mux(is_code, 0, self.data)), crc.valid.eq(yields), crc.start.eq(ends)]

        # The last bytes of a frame, its CRC and the one before that: only at the end is it known what they are.
        delayed = Signal(8 * (CHECK_BYTES + 1))
        held = Signal(range(CHECK_BYTES + 2))
        long_enough = Signal()
        m.d.comb += long_enough.eq(held == CHECK_BYTES + 1)
        with m.If(yields):
            m.d.sync += delayed.eq(Cat(delayed[8:], crc.data))
            with m.If(~long_enough):
                m.d.sync += held.eq(held + 1)
        with m.If(ends):
            m.d.sync += held.eq(0)

        m.submodules.store = store = Memory(9, self.depth)
        pointer_bits = (self.depth - 1).bit_length() + 1
        written = Signal(pointer_bits)
        committed = Signal(pointer_bits)
        read = Signal(pointer_bits)
        no_room = Signal()
        writes = Signal()
        spoilt = Signal()
        overflowed = Signal()
        m.d.comb += [
            no_room.eq(written == (read ^ self.depth)),
            writes.eq((yields | ends) & long_enough & ~no_room),
            store.write_enable.eq(writes),
            store.write_address.eq(written),
            store.write_data.eq(Cat(delayed[:8], ends)),
        ]
        with m.If(writes):
            m.d.sync += written.eq(written + 1)
        with m.If(ends):
            m.d.sync += [spoilt.eq(0), overflowed.eq(0)]
        with m.Else():
            m.d.sync += [spoilt.eq(spoilt | self.broken), overflowed.eq(overflowed | (yields & long_enough & no_room))]

        m.d.sync += [self.malformed.eq(0), self.wrong.eq(0), self.full.eq(0)]
        with m.If(ends):
            m.d.sync += written.eq(committed)
            with m.If(spoilt | self.broken | (within & ((left != 0) | ~long_enough))):
                m.d.sync += self.malformed.eq(1)
            with m.Elif(within & ~crc.match_detected):
                m.d.sync += self.wrong.eq(1)
            with m.Elif(within & (overflowed | no_room)):
                m.d.sync += self.full.eq(1)
            with m.Elif(within):
                m.d.sync += [written.eq(written + 1), committed.eq(written + 1)]

        fetches = Signal()
        m.d.comb += [
            fetches.eq((read != committed) & (~self.frame.valid | self.frame.ready)),
            store.read_enable.eq(fetches),
            store.read_address.eq(read),
            self.frame.payload.eq(store.read_data),
        ]
        with m.If(fetches):
            m.d.sync += [read.eq(read + 1), self.frame.valid.eq(1)]
        with m.Elif(self.frame.ready):
            m.d.sync += self.frame.valid.eq(0)
        return m
