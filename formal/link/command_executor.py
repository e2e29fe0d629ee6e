"""Whatever frames hold, no request leaves the memory, and what is offered holds until it is taken."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In
from nibblecore.formal.bus.channel import assert_holds
from nibblecore.formal.runner import Proof
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.link.command_executor import CommandExecutor
from nibblecore.hdl.link.frame_receiver import frame_layout

__all__ = ["PROOFS"]

MEMORY_BYTES = 5


class ExecutorSpec(wiring.Component):
    """Any frames, any memory, any registers; a sender that takes bytes when it likes."""

    def __init__(self, block: type[CommandExecutor] = CommandExecutor) -> None:
        self.block = block
        super().__init__(
            {
                "frame": In(stream.Signature(frame_layout())),
                "request_ready": In(1),
                "response_valid": In(1),
                "byte_ready": In(1),
                "room": In(9),
                "idle": In(1),
                "irq": In(1),
                "awready": In(1),
                "wready": In(1),
                "bvalid": In(1),
                "bresp": In(2),
                "arready": In(1),
                "rvalid": In(1),
                "rresp": In(2),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.executor = executor = self.block(MEMORY_BYTES, 1, bytes(8), 16, 2)
        request, axi = executor.memory_request, executor.m_axi
        connect(m, self.frame, executor.frame)
        owed = Signal()
        m.d.sync += owed.eq(
            (owed | (request.valid & request.ready)) & ~(executor.memory_response.valid & executor.memory_response.ready)
        )
        m.d.comb += [
            request.ready.eq(self.request_ready),
            executor.memory_response.valid.eq(self.response_valid & owed),
            executor.byte.ready.eq(self.byte_ready),
            executor.room.eq(self.room),
            executor.idle.eq(self.idle),
            executor.irq.eq(self.irq),
            axi.awready.eq(self.awready),
            axi.wready.eq(self.wready),
            axi.bvalid.eq(self.bvalid),
            axi.bresp.eq(self.bresp),
            axi.arready.eq(self.arready),
            axi.rvalid.eq(self.rvalid),
            axi.rresp.eq(self.rresp),
        ]
        assert_holds(m, "request", request.valid, request.ready, request.payload)
        m.d.comb += [
            Assume(self.room <= 504),
            Assert(Mux(request.valid, (request.payload.address < MEMORY_BYTES) & ~owed, 1)),
            Cover(request.valid & request.payload.write & (request.payload.address == MEMORY_BYTES - 1)),
        ]
        return m


class ReachingExecutor(CommandExecutor):
    """Lets a command reach a byte too far."""

    def elaborate(self, platform: Any) -> Module:
        self.memory_bytes += 1
        return super().elaborate(platform)


PROOFS = [
    Proof(
        name="link.command_executor.inside",
        spec=ExecutorSpec,
        fault=lambda: ExecutorSpec(ReachingExecutor),
        engine="pdr",
        cover_depth=24,
        reason="a memory of five bytes; frames, answers, room and pace are free",
    )
]
