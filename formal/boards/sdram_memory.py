"""Whatever comes from all sides, what is offered to accelerator and link holds until it is taken, and every word finds its place."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.formal.bus.channel import assert_holds
from nibblecore.formal.runner import Proof
from nibblecore.hdl.boards.bursts import Burst
from nibblecore.hdl.boards.sdram_controller import SdramPins, word_layout
from nibblecore.hdl.boards.sdram_memory import SdramMemory
from nibblecore.hdl.bus.axi4 import Response

from .sdram_controller import CHIP, TIMING

__all__ = ["PROOFS"]

BUS_BYTES, SIZE = 8, 4096
_LATENCY = 2


class Words(wiring.Component):
    """Stands in for the controller: takes words when it likes. Those for the bus, `_LATENCY` later, are numbered modulo 16; bytes of the
    link are anything.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "request": In(stream.Signature(word_layout(CHIP))),
                "found": Out(1),
                "tag": Out(1),
                "word": Out(16),
                "pins": Out(SdramPins(CHIP)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        request = self.request.payload
        coming = Signal(_LATENCY)
        tags = Signal(_LATENCY)
        number = Signal(4)
        m.d.comb += self.request.ready.eq(AnySeq(1) & self.request.valid)
        m.d.sync += [coming.eq(Cat(self.request.ready & ~request.write, coming)), tags.eq(Cat(request.tag, tags))]
        m.d.sync += number.eq(number + (self.found & ~self.tag))
        m.d.comb += [self.found.eq(coming[-1]), self.tag.eq(tags[-1]), self.word.eq(Mux(self.tag, AnySeq(16), number))]
        return m


class Block(SdramMemory):
    BEATS = 2

    def __init__(self, fault: bool) -> None:
        super().__init__(BUS_BYTES, SIZE, CHIP, TIMING)
        self._fault = fault

    def _controller(self) -> Any:
        return Words()

    def _take_turns(self, m: Module, free: Value, reads: Burst, writes: Burst, room: Value, ready: Value) -> None:
        super()._take_turns(m, free, reads, writes, room | self._fault, ready)

    def _read_channel(self, m: Module, controller: Any, reads: Burst) -> tuple[Signal, Signal]:
        result = super()._read_channel(m, controller, reads)
        for queue in (m.submodules.order, m.submodules.found):
            m.d.comb += Assert(queue.w_rdy | ~queue.w_en)
        return result


class BeatsSpec(wiring.Component):
    """Any bursts, any bytes of the link, answers taken at any time; with `fault` more beats are asked for than find room."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        inputs = {"araddr": 32, "arlen": 8, "awaddr": 32, "awlen": 8, "wdata": 8 * BUS_BYTES, "wstrb": BUS_BYTES, "request": 41}
        flags = ("arvalid", "awvalid", "wvalid", "rready", "bready", "request_valid", "response_ready")
        super().__init__({name: In(bits) for name, bits in (inputs | dict.fromkeys(flags, 1)).items()})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = Block(self.fault)
        axi, request, response = memory.s_axi, memory.memory_request, memory.memory_response
        for name in ("araddr", "arlen", "awaddr", "awlen", "wdata", "wstrb", "arvalid", "awvalid", "wvalid", "rready", "bready"):
            m.d.comb += getattr(axi, name).eq(getattr(self, name))
        m.d.comb += [
            request.valid.eq(self.request_valid),
            request.payload.eq(self.request),
            response.ready.eq(self.response_ready),
            Assume(request.payload.address < SIZE),
        ]
        assert_holds(m, "r", axi.rvalid, axi.rready, axi.rdata, axi.rresp, axi.rlast)
        assert_holds(m, "b", axi.bvalid, axi.bready, axi.bresp)
        assert_holds(m, "response", response.valid, response.ready, response.payload)

        # Of bursts inside, beat after beat holds word after word: none is lost, none comes twice.
        beat = Signal(2)
        inside = axi.rvalid & (axi.rresp == Response.OKAY)
        m.d.sync += beat.eq(beat + (inside & axi.rready))
        words = [axi.rdata.word_select(place, 16) for place in range(BUS_BYTES // 2)]
        expected = [Cat(Const(place, 2), beat) for place in range(BUS_BYTES // 2)]
        m.d.comb += [Assert(Mux(inside, word == number, 1)) for word, number in zip(words, expected, strict=True)]

        # The link is asked for nothing while it waits for an answer.
        waits = Signal()
        with m.If(request.valid & request.ready):
            m.d.sync += waits.eq(1)
        with m.Elif(response.valid & response.ready):
            m.d.sync += waits.eq(0)
        m.d.comb += [Assert(~(waits & request.ready)), Assert(Mux(response.valid, waits, 1))]
        m.d.comb += [Cover(inside & ~axi.rready & response.valid & (beat == 1)), Cover(axi.bvalid & (axi.bresp == Response.DECERR))]
        return m


PROOFS = [
    Proof(
        name="boards.sdram_memory.beats",
        spec=BeatsSpec,
        fault=lambda: BeatsSpec(fault=True),
        engine="bmc",
        depth=18,
        cover_depth=18,
        reason="18 cycles hold three beats, one more than there is room for here, and a byte of the link; a controller that takes words "
        "at any pace stands in for the chip's",
    )
]
