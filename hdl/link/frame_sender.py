"""Frames onto a line, kept for as long as they may be asked for again."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.memory import Memory

from .frame_receiver import CHECK_BYTES, DELIMITER
from .protocol import FRAME_BYTES, SLOTS

__all__ = ["FrameSender"]

_SLOT_BYTES = 512
"""Of the longest frame with its stuffing: a code in front and one behind every 254 bytes."""

_LONGEST_RUN = 254


class FrameSender(wiring.Component):
    """Takes a frame byte by byte into one of `SLOTS`, adds the CRC-32, and sends it stuffed, as `FrameReceiver` has it, again on demand.

    A slot holds the frame as it goes over the line: a byte is stuffed when it is taken. A run of 254 bytes ends with a code of its own, also
    at the end of a frame, where one code fewer would do.

    Latency: the first byte is offered seven or eight cycles after ``finish``, two after ``again``. Throughput: a byte a cycle in, but for a
    cycle after each 254 without a zero; one in two cycles out.

    Members
    -------
    slot : In(2)
        Where the frame lies that the other inputs are about. Changes only while ``idle``.
    start : In(1)
        A new frame begins, in place of what the slot holds; only while ``idle``.
    byte : In(stream of 8)
        Taken while ``idle``; not in the cycle of ``start``. No more than ``room``.
    finish : In(1)
        The frame is whole: add the CRC and send it; only while ``idle`` and no byte is offered.
    again : In(1)
        Send what the slot holds, a frame that was finished before; only while ``idle``.
    room : Out(9)
        Bytes that the frame in hand still takes.
    idle : Out(1)
        Nothing is left to send.
    line : Out(stream of 8)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "slot": In(range(SLOTS)),
                "start": In(1),
                "byte": In(stream.Signature(8)),
                "finish": In(1),
                "again": In(1),
                "room": Out(range(FRAME_BYTES)),
                "idle": Out(1),
                "line": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=8).create()
        m.submodules.store = store = Memory(8, SLOTS * _SLOT_BYTES)

        # The run of bytes without a zero at the end of the frame in hand, and where its code will be written.
        code_place = Signal(range(_SLOT_BYTES))
        end = Signal(range(_SLOT_BYTES))
        run = Signal(8)
        put = Signal()
        byte = Signal(8)
        ends_run = Signal()
        run_is_full = Signal()
        closes = Signal()
        m.d.comb += [
            run_is_full.eq(run == _LONGEST_RUN),
            ends_run.eq(run_is_full | closes | (put & (byte == 0))),
            store.write_enable.eq(ends_run | put),
            store.write_address.eq(Cat(Mux(ends_run, code_place, end), self.slot)),
            store.write_data.eq(Mux(ends_run, run + 1, byte)),
        ]
        with m.If(self.start):
            m.d.sync += [code_place.eq(0), end.eq(1), run.eq(0)]
        with m.Elif(ends_run):
            m.d.sync += [code_place.eq(end), end.eq(end + 1), run.eq(0)]
        with m.Elif(put):
            m.d.sync += [end.eq(end + 1), run.eq(run + 1)]

        taken = Signal()
        m.d.comb += [
            taken.eq(self.byte.valid & self.byte.ready),
            crc.start.eq(self.start),
            crc.data.eq(self.byte.payload),
            crc.valid.eq(taken),
        ]
        with m.If(self.start):
            m.d.sync += self.room.eq(FRAME_BYTES - CHECK_BYTES)
        with m.Elif(taken):
            m.d.sync += self.room.eq(self.room - 1)

        lengths = [Signal(range(_SLOT_BYTES), name=f"length{slot}") for slot in range(SLOTS)]
        length = Signal(range(_SLOT_BYTES))
        with m.Switch(self.slot):
            for slot, kept in enumerate(lengths):
                with m.Case(slot):
                    m.d.comb += length.eq(kept)
                    with m.If(closes):
                        m.d.sync += kept.eq(end)

        checked = Signal(range(CHECK_BYTES))
        place = Signal(range(_SLOT_BYTES))
        m.d.comb += store.read_address.eq(Cat(place, self.slot))
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += [self.idle.eq(1), self.byte.ready.eq(~run_is_full), put.eq(taken), byte.eq(self.byte.payload)]
                m.d.sync += [checked.eq(0), place.eq(0)]
                with m.If(self.finish):
                    m.next = "CHECK"
                with m.Elif(self.again):
                    m.next = "FETCH"
            with m.State("CHECK"):
                m.d.comb += [put.eq(~run_is_full), byte.eq(crc.crc.word_select(checked, 8))]
                with m.If(put):
                    m.d.sync += checked.eq(checked + 1)
                    with m.If(checked == CHECK_BYTES - 1):
                        m.next = "CLOSE"
            with m.State("CLOSE"), m.If(~run_is_full):
                m.d.comb += closes.eq(1)
                m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += store.read_enable.eq(1)
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += [self.line.valid.eq(1), self.line.payload.eq(store.read_data)]
                with m.If(self.line.ready):
                    m.d.sync += place.eq(place + 1)
                    m.next = "FETCH"
                    with m.If(place == length - 1):
                        m.next = "DELIMIT"
            with m.State("DELIMIT"):
                m.d.comb += [self.line.valid.eq(1), self.line.payload.eq(DELIMITER)]
                with m.If(self.line.ready):
                    m.next = "TAKE"
        return m
