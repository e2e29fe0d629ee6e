"""Whatever comes from all sides, what is offered to the accelerator holds until it is taken, the link is answered in time, and with an
engine beside the memory every port reads what any of them wrote.
"""

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, ResetSignal, Signal
from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.bus.channel import assert_holds
from nibblecore.formal.runner import Proof
from nibblecore.hdl.boards.block_memory import BlockMemory
from nibblecore.hdl.config import DramConfig
from nibblecore.hdl.memory import Memory

__all__ = ["PROOFS"]

BUS_BYTES, SIZE = 4, 4096
WIDE_BYTES = 8
DRAM = DramConfig(banks=8, rows=8, columns=32)
"""Twice as many rows as there are."""
BANK, BYTE = 5, 6
"""Of the byte that is looked at: all banks are alike, and so are a bank's bytes."""


class MemorySpec(wiring.Component):
    """Any bursts, any bytes of the link, answers taken at any time; with `fault` a byte that is read drops the beat on offer."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        inputs = {"araddr": 32, "arlen": 8, "awaddr": 32, "awlen": 8, "wdata": 8 * BUS_BYTES, "wstrb": BUS_BYTES}
        flags = ("arvalid", "awvalid", "wvalid", "rready", "bready", "request_valid", "response_ready")
        super().__init__(
            {**{name: In(bits) for name, bits in inputs.items()}, **{name: In(1) for name in flags}, "request": In(41)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = BlockMemory(BUS_BYTES, SIZE)
        axi, request, response = memory.s_axi, memory.memory_request, memory.memory_response
        for name in ("araddr", "arlen", "awaddr", "awlen", "wdata", "wstrb", "arvalid", "awvalid", "wvalid", "bready"):
            m.d.comb += getattr(axi, name).eq(getattr(self, name))
        m.d.comb += [
            request.valid.eq(self.request_valid),
            request.payload.eq(self.request),
            response.ready.eq(self.response_ready),
            Assume(request.payload.address < SIZE),
        ]
        taken = Signal()
        m.d.comb += [
            taken.eq(request.valid & request.ready),
            axi.rready.eq(self.rready | (taken & ~request.payload.write if self.fault else 0)),
        ]
        assert_holds(m, "r", axi.rvalid, self.rready, axi.rdata, axi.rresp, axi.rlast)
        assert_holds(m, "b", axi.bvalid, axi.bready, axi.bresp)
        assert_holds(m, "response", response.valid, response.ready, response.payload)

        # A byte of the link is answered in time, whatever the bursts do.
        asked = Signal()
        m.d.sync += asked.eq(taken & ~request.payload.write)
        written = Signal()
        m.d.sync += written.eq(taken & request.payload.write)
        read = Signal()
        m.d.sync += read.eq(asked)
        m.d.comb += [
            Assert(Mux(written | read, response.valid, 1)),
            Cover(axi.rvalid & ~self.rready & read & (axi.rresp == 0)),
            Cover(axi.bvalid & (axi.bresp == 3)),
        ]
        return m


class OneWord(Memory):
    """Stands in for `Memory`: of its words it keeps the one at `kept`, and the others are whatever is read."""

    def __init__(self, width: int, depth: int, kept: Signal) -> None:
        super().__init__(width, depth)
        self.kept = kept

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        width = len(self.write_data)
        word, either, other = Signal(width), AnySeq(1), AnySeq(width)
        writes, reads = self.write_enable & (self.write_address == self.kept), self.read_address == self.kept
        with m.If(writes):
            m.d.sync += word.eq(self.write_data)
        with m.If(self.read_enable):
            m.d.sync += self.read_data.eq(Mux(reads, Mux(writes & either, self.write_data, word), other))
        return m


class SharedSpec(wiring.Component):
    """A byte of a bank, in any beat of it, and all who write and read it. Of bursts one each way is under way, and none while the engine
    accesses columns, of banks that differ; no reset. With `fault` the engine's v is read from the bank of m.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        inputs = {"araddr": 32, "arlen": 8, "awaddr": 32, "awlen": 8, "wdata": 8 * WIDE_BYTES, "wstrb": WIDE_BYTES}
        flags = ("arvalid", "awvalid", "wvalid", "rready", "bready", "request_valid", "response_ready", "activate", "read", "write")
        engine = {"bank": 3, "row": 3, "read_column": 5, "write_column": 5}
        operands = {f"{way}_bank_{name}": 3 for way in ("read", "write") for name in "wmv"} | {
            f"write_{name}": 32 for name in "wmv"
        }
        super().__init__(
            {name: In(bits) for name, bits in (inputs | dict.fromkeys(flags, 1) | engine | operands | {"request": 41}).items()}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        kept = Signal(6)
        m.d.comb += kept.eq(AnyConst(6))
        lane, bank = BYTE % 4, BANK
        column, row = Cat(Const(BYTE // 4, 1), kept[:4]), kept[4:]
        place = Cat(Const(BYTE, 3), kept[:4], Const(BANK, 3), row)

        class Block(BlockMemory):
            def _memory(self, width: int, depth: int) -> Any:
                return OneWord(width, depth, kept)

        m.submodules.memory = memory = Block(WIDE_BYTES, SIZE, DRAM)
        axi, request, response, port = memory.s_axi, memory.memory_request, memory.memory_response, memory.dram
        for name in ("araddr", "arlen", "awaddr", "awlen", "wdata", "wstrb", "arvalid", "awvalid", "wvalid", "rready", "bready"):
            m.d.comb += getattr(axi, name).eq(getattr(self, name))
        for name in ("activate", "bank", "row", "read", "read_column", "write", "write_column"):
            m.d.comb += getattr(port, name).eq(getattr(self, name))
        for name in "wmv":
            read_bank = self.read_bank_m if self.fault and name == "v" else getattr(self, f"read_bank_{name}")
            m.d.comb += [
                getattr(port, f"read_bank_{name}").eq(read_bank),
                getattr(port, f"write_bank_{name}").eq(getattr(self, f"write_bank_{name}")),
                getattr(port, f"write_{name}").eq(getattr(self, f"write_{name}")),
            ]
        m.d.comb += [
            request.valid.eq(self.request_valid),
            request.payload.eq(self.request),
            response.ready.eq(self.response_ready),
            Assume(request.payload.address < SIZE),
            Assume(~ResetSignal()),
        ]
        # Bursts: the address of the next beat of the one under way.
        at = {}
        for way, beat, last in (("r", axi.rvalid & axi.rready, axi.rlast), ("w", axi.wvalid & axi.wready, None)):
            address, length, valid, ready = (getattr(axi, f"a{way}{part}") for part in ("addr", "len", "valid", "ready"))
            busy = Signal(name=f"{way}_busy")
            next_beat = Signal(32, name=f"{way}_at")
            over = beat & last if last is not None else axi.bvalid & axi.bready
            m.d.comb += [
                Assume(~(valid & busy) & ~((self.read | self.write) & (busy | valid))),
                Assume(~address[:3].any() & (address[3:12] + length < SIZE // WIDE_BYTES)),
            ]
            with m.If(valid & ready):
                m.d.sync += [busy.eq(1), next_beat.eq(address)]
            with m.Elif(over):
                m.d.sync += busy.eq(0)
            with m.Elif(beat):
                m.d.sync += next_beat.eq(next_beat + WIDE_BYTES)
            at[way] = next_beat

        # The engine: rows as they were opened.
        opened, rows = Signal(DRAM.banks), Array(Signal(3, name=f"open_row{number}") for number in range(DRAM.banks))
        with m.If(self.activate):
            m.d.sync += [opened.bit_select(self.bank, 1).eq(1), rows[self.bank].eq(self.row)]
        hits: dict[str, list[Signal]] = {}
        for way in ("read", "write"):
            access, banks = getattr(self, way), [getattr(self, f"{way}_bank_{name}") for name in "wmv"]
            m.d.comb += Assume((banks[0] != banks[1]) & (banks[1] != banks[2]) & (banks[2] != banks[0]))
            m.d.comb += [Assume(~access | opened.bit_select(each, 1)) for each in banks]
            hits[way] = [Signal(name=f"{way}_hit_{name}") for name in "wmv"]
            here = access & (rows[bank] == row) & (getattr(self, f"{way}_column") == column)
            m.d.comb += [hit.eq(here & (each == bank)) for hit, each in zip(hits[way], banks, strict=True)]
        m.d.comb += Assume(~(Cat(hits["read"]).any() & Cat(hits["write"]).any()))

        # Who wrote the byte last, and what.
        by_bus, by_link, by_engine = Signal(), Signal(), Signal()
        value = Signal(8)
        taken = Signal()
        asked = Signal()
        m.d.comb += [
            taken.eq(request.valid & request.ready & (request.payload.address == place)),
            asked.eq(taken & ~request.payload.write),
        ]
        beat_here = axi.wvalid & axi.wready & (at["w"][3:] == place[3:]) & axi.wstrb[BYTE]
        with m.If(Cat(hits["write"]).any()):
            written = Mux(hits["write"][0], self.write_w, Mux(hits["write"][1], self.write_m, self.write_v))
            m.d.sync += [Cat(by_bus, by_link, by_engine).eq(0b100), value.eq(written.word_select(lane, 8))]
        with m.Elif(taken & request.payload.write):
            m.d.sync += [Cat(by_bus, by_link, by_engine).eq(0b010), value.eq(request.payload.byte)]
        with m.Elif(beat_here):
            m.d.sync += [Cat(by_bus, by_link, by_engine).eq(0b001), value.eq(axi.wdata.word_select(BYTE, 8))]

        # Who reads it: from the cycle of the access on, what was there before it, or after it.
        known, before, was_known = by_bus | by_link | by_engine, Signal(8), Signal()
        m.d.sync += [before.eq(value), was_known.eq(known)]
        for name, hit in zip("wmv", hits["read"], strict=True):
            found = Signal(name=f"found_{name}")
            m.d.sync += found.eq(hit)
            m.d.comb += Assert(Mux(found & was_known, getattr(port, f"read_{name}").word_select(lane, 8) == before, 1))
            m.d.comb += [Cover(found & by_bus), Cover(found & by_link)]
        offered = Signal()
        m.d.sync += offered.eq(axi.rvalid & ~axi.rready)
        arrives = axi.rvalid & ~offered & (at["r"][3:] == place[3:])
        byte = axi.rdata.word_select(BYTE, 8)
        m.d.comb += [Assert(Mux(arrives & was_known, (byte == before) | (byte == value), 1)), Cover(arrives & by_engine)]
        legal, legal_after, answers = Signal(8), Signal(8), Signal()
        looked = Signal()
        m.d.sync += [looked.eq(asked), answers.eq(looked & was_known), legal.eq(before), legal_after.eq(value)]
        m.d.comb += [
            Assert(Mux(answers, response.valid & ((response.payload == legal) | (response.payload == legal_after)), 1)),
            Cover(answers & by_engine),
        ]
        return m


PROOFS = [
    Proof(
        name="boards.block_memory.holds",
        spec=MemorySpec,
        fault=lambda: MemorySpec(fault=True),
        engine="induction",
        depth=7,
        cover_depth=12,
        reason="a page of four-byte beats, as arrays of the solver; bursts, bytes and paces are free",
    ),
    Proof(
        name="boards.block_memory.shared",
        spec=SharedSpec,
        fault=lambda: SharedSpec(fault=True),
        engine="bmc",
        depth=10,
        cover_depth=10,
        reason="10 cycles hold a write and a read through any two ports. Memories are replaced by ones that keep the word with the byte and "
        "read as anything elsewhere; four rows of eight banks of two-word beats",
    ),
]
