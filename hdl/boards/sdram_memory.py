"""A board's memory in an SDR SDRAM, for the accelerator and the host."""

from enum import IntEnum
from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.axi4 import PAGE_BYTES, Axi4, Response
from nibblecore.hdl.link.command_executor import memory_request_layout

from .bursts import Burst, bursts
from .chips import SdramChip, SdramTiming
from .sdram_controller import SdramController, SdramPins

__all__ = ["SdramMemory"]


class SdramMemory(wiring.Component):
    """Memory from address 0 on, with an AXI4 port and one for the bytes of a link, as `BlockMemory` has them.

    Bursts are served as there. Beats that are offered before their burst's address are taken. A reset forgets beats that were taken and
    whose burst was not answered; the chip goes on being refreshed and keeps what it has.

    A byte of the link goes before all beats but the one at work. Of the two directions a burst goes on for as long as it can, then it is
    the other one's turn: beats that are not taken or do not come hold up nobody else.

    Latency: of a beat's first word that of the controller, then a cycle a word, and two cycles. Throughput: a word of 16 bits a cycle in an
    open row, from burst to burst too, unless that has a single beat.

    Parameters
    ----------
    bus_bytes : int
        At least 8.
    size : int
        Bytes, a positive multiple of 4096, at most the chip's. ValueError otherwise.
    chip : SdramChip
    timing : SdramTiming
        Of the chip at the clock of the design.

    Members
    -------
    s_axi : In(Axi4(bus_bytes))
    memory_request : In(stream of ``memory_request_layout()``)
        Addresses below ``size``. Taken once the one before has been answered, between two beats.
    memory_response : Out(stream of 8)
        As of `CommandExecutor`.
    pins : Out(SdramPins(chip))
    busy : Out(1)
        A burst is at work.
    refused : Out(1)
        For one cycle, with each beat outside that is done.
    """

    BEATS = 4
    """Asked for and not yet taken, at most: they cover the way from a beat's first word to its place on the bus."""

    def __init__(self, bus_bytes: int, size: int, chip: SdramChip, timing: SdramTiming) -> None:
        if bus_bytes < 8:
            raise ValueError(f"a beat must have 8 bytes or more, not {bus_bytes}")
        if not 0 < size <= chip.bytes or size % PAGE_BYTES:
            raise ValueError(f"size must be a positive multiple of {PAGE_BYTES}, at most the chip's {chip.bytes}, not {size}")
        self.bus_bytes = bus_bytes
        self.size = size
        self.words = size // bus_bytes
        self.chip = chip
        self.timing = timing
        super().__init__(
            {
                "s_axi": In(Axi4(bus_bytes)),
                "memory_request": In(stream.Signature(memory_request_layout())),
                "memory_response": Out(stream.Signature(8)),
                "pins": Out(SdramPins(chip)),
                "busy": Out(1),
                "refused": Out(1),
            }
        )

    def _controller(self) -> Any:
        """The proof's stand-in takes its place."""
        return SdramController(self.chip, self.timing)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.controller = controller = self._controller()
        m.submodules.beats = beats = SyncFIFO(width=9 * self.bus_bytes, depth=2)
        wiring.connect(m, wiring.flipped(self.pins), controller.pins)
        axi, asked = self.s_axi, controller.request.payload
        words = self.bus_bytes // self.chip.WORD_BYTES
        reads = bursts(m, axi, "ar", self.words)
        writes = bursts(m, axi, "aw", self.words)

        # What is at work: the words of a beat, or the one with a byte of the link.
        job = Signal(_Job)
        by_link = Signal()
        beat = Signal(range(self.words))
        place = Signal(range(words))
        data = Signal(8 * self.bus_bytes)
        strobe = Signal(self.bus_bytes)
        ends_burst = Signal()  # it is written, and its burst to be answered
        done = Signal()
        free = Signal()
        m.d.comb += [
            by_link.eq((job == _Job.READ_BYTE) | (job == _Job.WRITE_BYTE)),
            controller.request.valid.eq(job != _Job.NONE),
            asked.address.eq(Cat(place, beat)),
            asked.write.eq((job == _Job.WRITE) | (job == _Job.WRITE_BYTE)),
            asked.data.eq(data),
            asked.strobe.eq(strobe),
            asked.tag.eq(by_link),
            done.eq(controller.request.valid & controller.request.ready & ((place == words - 1) | by_link)),
            free.eq((job == _Job.NONE) | done),
        ]
        with m.If(controller.request.ready):
            m.d.sync += [place.eq(place + 1), data.eq(data >> 16), strobe.eq(strobe >> 2)]
        with m.If(done):
            m.d.sync += job.eq(_Job.NONE)

        # What is at work next.
        byte = self._link(m, controller, free, done & (job == _Job.WRITE_BYTE))
        room, due = self._read_channel(m, controller, reads)
        self._take_turns(m, free & ~byte, reads, writes, room, beats.r_rdy & ~(writes.last & (axi.bvalid | ends_burst)))
        with m.If(byte):
            request = self.memory_request.payload
            m.d.sync += [
                job.eq(Mux(request.write, _Job.WRITE_BYTE, _Job.READ_BYTE)),
                Cat(place, beat).eq(request.address[1:]),
                data.eq(request.byte.replicate(2)),
                strobe.eq(1 << request.address[0]),
            ]
        with m.If(reads.step & ~reads.outside):
            m.d.sync += [job.eq(_Job.READ), beat.eq(reads.word), place.eq(0)]
        with m.If(writes.step & ~writes.outside):
            m.d.sync += [job.eq(_Job.WRITE), beat.eq(writes.word), place.eq(0), Cat(data, strobe).eq(beats.r_data)]
            m.d.sync += ends_burst.eq(writes.last)

        m.d.comb += [
            beats.w_data.eq(Cat(axi.wdata, axi.wstrb)),
            beats.w_en.eq(axi.wvalid),
            axi.wready.eq(beats.w_rdy),
            beats.r_en.eq(writes.step),
        ]
        with m.If(writes.step & writes.last & writes.outside):
            m.d.sync += [axi.bvalid.eq(1), axi.bresp.eq(Response.DECERR)]
        with m.Elif(ends_burst & done):
            m.d.sync += [axi.bvalid.eq(1), axi.bresp.eq(Response.OKAY), ends_burst.eq(0)]
        with m.Elif(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        m.d.comb += [
            self.busy.eq(reads.valid | writes.valid | ends_burst | due),
            self.refused.eq((reads.step & reads.outside) | (writes.step & writes.outside)),
        ]
        return m

    def _link(self, m: Module, controller: Any, free: Signal, written: Value) -> Signal:
        """Answers the link; high when its byte is to be at work next."""
        taken = Signal(name="byte_taken")
        waits = Signal(name="byte_waits")
        lane = Signal(name="byte_lane")
        response = self.memory_response
        m.d.comb += [self.memory_request.ready.eq(free & ~waits), taken.eq(self.memory_request.valid & self.memory_request.ready)]
        with m.If(taken):
            m.d.sync += [waits.eq(1), lane.eq(self.memory_request.payload.address[0])]
        with m.If(controller.found & controller.tag):
            m.d.sync += [response.valid.eq(1), response.payload.eq(controller.word.word_select(lane, 8))]
        with m.Elif(written):
            m.d.sync += response.valid.eq(1)
        with m.Elif(response.valid & response.ready):
            m.d.sync += [response.valid.eq(0), waits.eq(0)]
        return taken

    def _take_turns(self, m: Module, free: Value, reads: Burst, writes: Burst, room: Signal, ready: Value) -> None:
        """Steps a direction, if one can: a read has room, a written beat is ready."""
        may_read = Signal()
        may_write = Signal()
        prefers_write = Signal()
        m.d.comb += [
            may_read.eq(reads.valid & room),
            may_write.eq(writes.valid & ready),
            reads.step.eq(free & may_read & ~(may_write & prefers_write)),
            writes.step.eq(free & may_write & ~(may_read & ~prefers_write)),
        ]
        with m.If(reads.step):
            m.d.sync += prefers_write.eq(reads.last)
        with m.If(writes.step):
            m.d.sync += prefers_write.eq(~writes.last)

    def _read_channel(self, m: Module, controller: Any, reads: Burst) -> tuple[Signal, Signal]:
        """Makes beats of words and offers them in the order of the steps; returns whether there is room for one more, and whether one is
        due.
        """
        m.submodules.order = order = SyncFIFO(width=2, depth=self.BEATS)
        m.submodules.found = found = SyncFIFO(width=8 * self.bus_bytes, depth=self.BEATS)
        axi = self.s_axi
        words = self.bus_bytes // self.chip.WORD_BYTES
        early = Signal(8 * self.bus_bytes - 16)
        count = Signal(range(words))
        arrives = Signal()
        last = Signal(name="offered_last")
        outside = Signal(name="offered_outside")
        m.d.comb += arrives.eq(controller.found & ~controller.tag)
        with m.If(arrives):
            m.d.sync += [early.eq(Cat(early, controller.word)[16:]), count.eq(count + 1)]
        m.d.comb += [
            found.w_data.eq(Cat(early, controller.word)),
            found.w_en.eq(arrives & (count == words - 1)),
            order.w_data.eq(Cat(reads.last, reads.outside)),
            order.w_en.eq(reads.step),
            Cat(last, outside).eq(order.r_data),
            axi.rvalid.eq(order.r_rdy & (outside | found.r_rdy)),
            axi.rlast.eq(last),
            axi.rresp.eq(Mux(outside, Response.DECERR, Response.OKAY)),
            axi.rdata.eq(Mux(outside, 0, found.r_data)),
            order.r_en.eq(axi.rvalid & axi.rready),
            found.r_en.eq(axi.rvalid & axi.rready & ~outside),
        ]
        return order.w_rdy, order.r_rdy


class _Job(IntEnum):
    NONE = 0
    READ = 1
    WRITE = 2
    READ_BYTE = 3
    WRITE_BYTE = 4
