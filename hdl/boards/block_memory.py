"""A board's memory in block RAM, for the accelerator, the engine beside the memory, and the host."""

from dataclasses import dataclass
from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.axi4 import PAGE_BYTES, Axi4, Response
from nibblecore.hdl.cambriconq.update.dram_port import DramPort
from nibblecore.hdl.config import DramConfig
from nibblecore.hdl.link.command_executor import memory_request_layout
from nibblecore.hdl.memory import Memory

from .bursts import bursts

__all__ = ["BlockMemory"]


@dataclass(frozen=True)
class _Access:
    """What the bus or the link has done in a cycle: a beat read, and bytes of one written."""

    read: Signal
    read_word: Signal
    found: Signal
    """What was read, from the next cycle on until bus or link read again; unless the engine has."""
    strobe: Signal
    write_word: Signal
    beat: Signal


class BlockMemory(wiring.Component):
    """Memory from address 0 on, with an AXI4 port and one for the bytes of a link, and with `dram` one for an engine beside it.

    Bursts are INCR, of whole beats, aligned to them and within 4 KiB, as the accelerators make them; other types are served as if they were
    such. A burst outside is answered DECERR: nothing is written, and what is read is anything. Each direction has a burst at work and one
    that waits, and answers in order.

    A byte of the link goes before the beats of its direction and waits for none: a read that is offered and not taken is kept meanwhile. It
    and a beat at the same address in the same cycle may come in either order.

    The engine goes before all. While it accesses columns no burst may be under way, which is for the accelerator to see to; a byte of the
    link waits for a cycle in which it accesses none. There are no row buffers, only the number of each bank's open row: what one port
    has written the others read from the next cycle on, and times of commands are of no concern. Of a row outside nothing is written, and
    what is read is anything.

    Latency: the first beat three cycles after its address was taken, the response the cycle after the last beat, a byte read two cycles
    after its request, a byte written one. Throughput: a beat a cycle each way, also from one burst to the next, unless that has a single
    beat: then every second cycle. A byte of the link takes the place of a beat. Of the engine's columns three are read and three
    written in a cycle.

    Parameters
    ----------
    bus_bytes : int
    size : int
        Bytes, a positive multiple of 4096, at most 4 GiB, and with `dram` of a row of all banks. ValueError otherwise.
    dram : DramConfig or None
        Where rows lie; its times are not used, and rows may be fewer or more than `size` has. With a row of a beat or more, ValueError
        otherwise.

    Members
    -------
    s_axi : In(Axi4(bus_bytes))
    memory_request : In(stream of ``memory_request_layout()``)
        Addresses below ``size``. Taken once the one before has been answered, in a cycle without an access of the engine.
    memory_response : Out(stream of 8)
        As of `CommandExecutor`.
    dram : In(DramPort(dram))
        Only with `dram`. ``precharge`` closes nothing: a row is open until the next one of its bank.
    busy : Out(1)
        A burst is at work, or the engine accesses columns.
    refused : Out(1)
        For one cycle, with each beat outside that is done, and with ACTIVATE of a row outside.
    """

    def __init__(self, bus_bytes: int, size: int, dram: DramConfig | None = None) -> None:
        if not 0 < size <= 1 << 32 or size % PAGE_BYTES:
            raise ValueError(f"size must be a positive multiple of {PAGE_BYTES}, at most 4 GiB, not {size}")
        if dram and 4 * dram.columns < bus_bytes:
            raise ValueError(f"a row must have {bus_bytes // 4} words or more, a beat's, not {dram.columns}")
        if dram and size % (4 * dram.columns * dram.banks):
            raise ValueError(f"size must be a multiple of {4 * dram.columns * dram.banks}, a row of all banks, not {size}")
        self._dram = dram
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
                **({"dram": In(DramPort(dram))} if dram else {}),
            }
        )

    def _memory(self, width: int, depth: int) -> Any:
        """The proof's stand-in takes its place."""
        return Memory(width, depth)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi = self.s_axi
        request = self.memory_request.payload
        lane_bits = (self.bus_bytes - 1).bit_length()
        lane = request.address[:lane_bits]
        reads = bursts(m, axi, "ar", self.words)
        writes = bursts(m, axi, "aw", self.words)
        engine = Signal()
        outside = Signal()
        m.d.comb += [
            self.busy.eq(reads.valid | writes.valid | engine),
            self.refused.eq((reads.step & reads.outside) | (writes.step & writes.outside) | outside),
        ]

        asked = Signal()
        asked_lane = Signal(lane_bits)
        byte_read = Signal()
        byte_written = Signal()
        m.d.comb += [
            self.memory_request.ready.eq(~asked & ~self.memory_response.valid & ~engine),
            byte_read.eq(self.memory_request.valid & self.memory_request.ready & ~request.write),
            byte_written.eq(self.memory_request.valid & self.memory_request.ready & request.write),
        ]
        found = Signal(8 * self.bus_bytes)
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
        read = Signal()
        read_word = Signal(range(self.words))
        strobe = Signal(self.bus_bytes)
        write_word = Signal(range(self.words))
        beat = Signal(8 * self.bus_bytes)
        m.d.comb += [
            read.eq(byte_read | (reads.step & ~reads.outside)),
            read_word.eq(Mux(byte_read, word, reads.word)),
            strobe.eq(Mux(writes.step & ~writes.outside, axi.wstrb, 0)),
            write_word.eq(Mux(byte_written, word, writes.word)),
            beat.eq(axi.wdata),
        ]
        with m.If(byte_written):
            m.d.comb += [strobe.eq(1 << lane), beat.eq(request.byte.replicate(self.bus_bytes))]
        access = _Access(read, read_word, found, strobe, write_word, beat)
        if self._dram:
            m.d.comb += engine.eq(self.dram.read | self.dram.write)
            self._banks(m, self._dram, access, outside)
        else:
            self._bits(m, access)
        return m

    def _bits(self, m: Module, access: _Access) -> None:
        """A memory a bit: block RAMs are deepest when narrow, and the fewer lie behind one another, the fewer are chosen from."""
        for place in range(8 * self.bus_bytes):
            m.submodules[f"bit{place}"] = memory = self._memory(1, self.words)
            m.d.comb += [
                memory.read_enable.eq(access.read),
                memory.read_address.eq(access.read_word),
                access.found[place].eq(memory.read_data),
                memory.write_enable.eq(access.strobe[place // 8]),
                memory.write_address.eq(access.write_word),
                memory.write_data.eq(access.beat[place]),
            ]

    def _banks(self, m: Module, dram: DramConfig, access: _Access, outside: Signal) -> None:
        """Banks of beats, each a memory for a byte; `outside` is raised with ACTIVATE of a row that there is not."""
        port, beat_words = self.dram, self.bus_bytes // 4
        bank_bits, low = (dram.banks - 1).bit_length(), (beat_words - 1).bit_length()
        high = (dram.columns - 1).bit_length() - low
        rows = self.words // dram.banks >> high

        def placed(word: Value) -> tuple[Value, Value]:
            """Of a beat of memory its bank, and its place there."""
            return word[high : high + bank_bits], Cat(word[:high], word[high + bank_bits :])

        m.d.comb += outside.eq(port.activate & (port.row >= rows))
        read_bank, read_place = placed(access.read_word)
        write_bank, write_place = placed(access.write_word)
        found = []
        for number in range(dram.banks):
            row = Signal(range(rows), name=f"row{number}")
            absent = Signal(name=f"absent{number}")
            with m.If(port.activate & (port.bank == number)):
                m.d.sync += [row.eq(port.row), absent.eq(outside)]
            # The operands lie in different banks.
            mine = {name: Signal(name=f"mine{number}_{name}") for name in "wmv"}
            m.d.comb += [mine[name].eq(getattr(port, f"write_bank_{name}") == number) for name in "wmv"]
            word = Mux(mine["w"], port.write_w, Mux(mine["m"], port.write_m, port.write_v))
            strobe = Signal(self.bus_bytes, name=f"strobe{number}")
            beat = Signal(8 * self.bus_bytes, name=f"beat{number}")
            with m.If(port.write):
                hit = Cat(*mine.values()).any() & ~absent
                m.d.comb += [beat.eq(word.replicate(beat_words)), strobe.eq(Mux(hit, 0b1111 << 4 * port.write_column[:low], 0))]
            with m.Else():
                m.d.comb += [beat.eq(access.beat), strobe.eq(Mux(write_bank == number, access.strobe, 0))]
            memories = [self._memory(8, rows << high) for _ in range(self.bus_bytes)]
            for lane, memory in enumerate(memories):
                m.submodules[f"bank{number}_byte{lane}"] = memory
                m.d.comb += [
                    memory.read_enable.eq(Mux(port.read, ~absent, access.read)),
                    memory.read_address.eq(Mux(port.read, Cat(port.read_column[low:], row), read_place)),
                    memory.write_enable.eq(strobe[lane]),
                    memory.write_address.eq(Mux(port.write, Cat(port.write_column[low:], row), write_place)),
                    memory.write_data.eq(beat.word_select(lane, 8)),
                ]
            found.append(Cat(memory.read_data for memory in memories))

        bank = Signal(bank_bits)
        with m.If(access.read):
            m.d.sync += bank.eq(read_bank)
        m.d.comb += access.found.eq(Array(found)[bank])
        column = Signal(low)
        m.d.sync += column.eq(port.read_column)
        for name in "wmv":
            bank = Signal(bank_bits, name=f"bank_{name}")
            m.d.sync += bank.eq(getattr(port, f"read_bank_{name}"))
            m.d.comb += getattr(port, f"read_{name}").eq(Array(found)[bank].word_select(column, 32))
