"""Whatever comes from both sides, what is offered to the accelerator holds until it is taken, and the link is answered in time."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.bus.channel import assert_holds
from nibblecore.formal.runner import Proof
from nibblecore.hdl.boards.block_memory import BlockMemory

__all__ = ["PROOFS"]

BUS_BYTES, SIZE = 4, 4096


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


PROOFS = [
    Proof(
        name="boards.block_memory.holds",
        spec=MemorySpec,
        fault=lambda: MemorySpec(fault=True),
        engine="induction",
        depth=7,
        cover_depth=12,
        reason="a page of four-byte beats, as arrays of the solver; bursts, bytes and paces are free",
    )
]
