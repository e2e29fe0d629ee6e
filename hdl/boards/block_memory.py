"""A board's memory in block RAM, for the accelerator and for the host."""

from dataclasses import dataclass

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.axi4 import PAGE_BYTES, Axi4, Response
from nibblecore.hdl.link.command_executor import memory_request_layout
from nibblecore.hdl.memory import Memory

__all__ = ["BlockMemory"]


@dataclass(frozen=True)
class _Burst:
    """The burst at work of a direction: its next beat."""

    valid: Signal
    word: Signal
    last: Signal
    outside: Signal
    step: Signal
    """For the direction to raise: the beat is done."""


class BlockMemory(wiring.Component):
    """Memory from address 0 on, with an AXI4 port and one for the bytes of a link.

    Bursts are INCR, of whole beats, aligned to them and within 4 KiB, as the accelerators make them; other types are served as if they were
    such. A burst outside is answered DECERR: nothing is written, and what is read is anything. Each direction has a burst at work and one
    that waits, and answers in order.

    A byte of the link goes before the beats of its direction and waits for none: a read that is offered and not taken is kept meanwhile. It
    and a beat at the same address in the same cycle may come in either order.

    Latency: the first beat three cycles after its address was taken, the response the cycle after the last beat, a byte read two cycles
    after its request, a byte written one. Throughput: a beat a cycle each way, also from one burst to the next, unless that has a single
    beat: then every second cycle. A byte of the link takes the place of a beat.

    Parameters
    ----------
    bus_bytes : int
    size : int
        Bytes, a positive multiple of 4096, at most 4 GiB. ValueError otherwise.

    Members
    -------
    s_axi : In(Axi4(bus_bytes))
    memory_request : In(stream of ``memory_request_layout()``)
        Addresses below ``size``. Taken once the one before has been answered.
    memory_response : Out(stream of 8)
        As of `CommandExecutor`.
    busy : Out(1)
        A burst is at work.
    refused : Out(1)
        For one cycle, with each beat outside that is done.
    """

    def __init__(self, bus_bytes: int, size: int) -> None:
        if not 0 < size <= 1 << 32 or size % PAGE_BYTES:
            raise ValueError(f"size must be a positive multiple of {PAGE_BYTES}, at most 4 GiB, not {size}")
        self.bus_bytes = bus_bytes
        self.size = size
        self.words = size // bus_bytes
        super().__init__(
            {
                "s_axi": In(Axi4(bus_bytes)),
                "memory_request": In(stream.Signature(memory_request_layout())),
                "memory_response": Out(stream.Signature(8)),
                "busy": Out(1),
                "refused": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi = self.s_axi
        request = self.memory_request.payload
        lane_bits = (self.bus_bytes - 1).bit_length()
        lane = request.address[:lane_bits]
        # A memory a bit: block RAMs are deepest when narrow, and the fewer lie behind one another, the fewer are chosen from.
        bits = [Memory(1, self.words) for _ in range(8 * self.bus_bytes)]
        for place, memory in enumerate(bits):
            m.submodules[f"bit{place}"] = memory
        reads = self._bursts(m, "ar")
        writes = self._bursts(m, "aw")
        m.d.comb += [
            self.busy.eq(reads.valid | writes.valid),
            self.refused.eq((reads.step & reads.outside) | (writes.step & writes.outside)),
        ]

        asked = Signal()
        asked_lane = Signal(lane_bits)
        byte_read = Signal()
        byte_written = Signal()
        m.d.comb += [
            self.memory_request.ready.eq(~asked & ~self.memory_response.valid),
            byte_read.eq(self.memory_request.valid & self.memory_request.ready & ~request.write),
            byte_written.eq(self.memory_request.valid & self.memory_request.ready & request.write),
        ]
        found = Cat(memory.read_data for memory in bits)
        m.d.sync += [asked.eq(byte_read), asked_lane.eq(lane)]
        with m.If(asked):
            m.d.sync += self.memory_response.payload.eq(found.word_select(asked_lane, 8))
        with m.If(asked | byte_written):
            m.d.sync += self.memory_response.valid.eq(1)
        with m.Elif(self.memory_response.ready):
            m.d.sync += self.memory_response.valid.eq(0)

        kept = Signal(8 * self.bus_bytes)
        is_kept = Signal()
        m.d.comb += [reads.step.eq(reads.valid & ~byte_read & (~axi.rvalid | axi.rready)), axi.rdata.eq(Mux(is_kept, kept, found))]
        with m.If(reads.step):
            m.d.sync += [
                axi.rvalid.eq(1),
                axi.rlast.eq(reads.last),
                axi.rresp.eq(Mux(reads.outside, Response.DECERR, Response.OKAY)),
            ]
        with m.Elif(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        with m.If(axi.rready):
            m.d.sync += is_kept.eq(0)
        with m.Elif(axi.rvalid & byte_read & ~is_kept):
            m.d.sync += [is_kept.eq(1), kept.eq(found)]

        m.d.comb += [
            axi.wready.eq(writes.valid & ~byte_written & ~(writes.last & axi.bvalid)),
            writes.step.eq(axi.wvalid & axi.wready),
        ]
        with m.If(writes.step & writes.last):
            m.d.sync += [axi.bvalid.eq(1), axi.bresp.eq(Mux(writes.outside, Response.DECERR, Response.OKAY))]
        with m.Elif(axi.bready):
            m.d.sync += axi.bvalid.eq(0)

        word = request.address[lane_bits:]
        strobe = Signal(self.bus_bytes)
        beat = Signal(8 * self.bus_bytes)
        m.d.comb += [strobe.eq(Mux(writes.step & ~writes.outside, axi.wstrb, 0)), beat.eq(axi.wdata)]
        with m.If(byte_written):
            m.d.comb += [strobe.eq(1 << lane), beat.eq(request.byte.replicate(self.bus_bytes))]
        for place, memory in enumerate(bits):
            m.d.comb += [
                memory.read_enable.eq(byte_read | (reads.step & ~reads.outside)),
                memory.read_address.eq(Mux(byte_read, word, reads.word)),
                memory.write_enable.eq(strobe[place // 8]),
                memory.write_address.eq(Mux(byte_written, word, writes.word)),
                memory.write_data.eq(beat[place]),
            ]
        return m

    def _bursts(self, m: Module, channel: str) -> _Burst:
        """Takes the bursts of an address channel, one after the other."""
        address, length, valid, ready = (getattr(self.s_axi, f"{channel}{part}") for part in ("addr", "len", "valid", "ready"))
        word_bits = 32 - (self.bus_bytes - 1).bit_length()
        page_bits = (PAGE_BYTES // self.bus_bytes - 1).bit_length()
        waits = Signal(name=f"{channel}_waits")
        first = Signal(word_bits, name=f"{channel}_first")
        count = Signal(8, name=f"{channel}_count")
        works = Signal(name=f"{channel}_works")
        word = Signal(word_bits, name=f"{channel}_word")
        left = Signal(8, name=f"{channel}_left")
        last = Signal(name=f"{channel}_last")
        outside = Signal(name=f"{channel}_outside")
        step = Signal(name=f"{channel}_step")
        m.d.comb += [ready.eq(~waits), last.eq(left == 0)]
        with m.If(valid & ready):
            m.d.sync += [waits.eq(1), first.eq(address >> (32 - word_bits)), count.eq(length)]
        with m.If(~works | (step & last)):
            m.d.sync += [works.eq(waits), word.eq(first), left.eq(count), outside.eq(first >= self.words)]
            with m.If(waits):
                m.d.sync += waits.eq(0)
        with m.Elif(step):
            m.d.sync += [word[:page_bits].eq(word[:page_bits] + 1), left.eq(left - 1)]
        return _Burst(works, word, last, outside, step)
