"""Frames of commands, one after the other, each once."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Member, Out
from nibblecore.hdl.bus.axi4 import AxiLite, Response, forward
from nibblecore.hdl.bus.streams import connect

from .frame_receiver import frame_layout
from .protocol import COUNTS, FRAME_BYTES, SEQUENCES, SLOTS, VERSION, Opcode, Outcome

__all__ = ["CommandExecutor", "connect_service", "memory_request_layout", "service"]

_OPERAND_BYTES = {code: sum(size for _, size in code.operands) for code in Opcode}
_MOST_OPERANDS = max(_OPERAND_BYTES.values())
_WAIT_BITS = 24
_TRAILER_BYTES = 2


def memory_request_layout() -> data.StructLayout:
    """A byte of memory to be read, or to be written."""
    return data.StructLayout({"address": 32, "write": 1, "byte": 8})


def service(address_bits: int) -> dict[str, Member]:
    """The ports at which the link finds an accelerator and its memory, as of `CommandExecutor`."""
    return {
        "memory_request": Out(stream.Signature(memory_request_layout())),
        "memory_response": In(stream.Signature(8)),
        "m_axi": Out(AxiLite(address_bits)),
        "irq": In(1),
    }


def connect_service(m: Module, inner: Any, outer: Any) -> None:
    """Hands the `service` of a submodule on to the enclosing component's."""
    connect(m, inner.memory_request, outer.memory_request)
    connect(m, outer.memory_response, inner.memory_response)
    m.d.comb += [inner.irq.eq(outer.irq), forward(inner.m_axi, outer.m_axi)]


class CommandExecutor(wiring.Component):
    """Carries out the commands of frames in their order and answers each frame with one.

    A frame's first byte is its number, modulo `SEQUENCES`; then come commands (`Opcode`), as many as it holds. The frame whose turn it is
    is carried out and answered: its first byte, what its commands answer, how many of them were carried out (1 byte, modulo 256), the
    `Outcome` (1). At the first command that cannot be carried out it ends there. A frame that was carried out, of the last `SLOTS`, is not
    carried out again but answered with the same bytes, whatever it holds. Any other is dropped. In a first byte, bit 7 begins anew: the frame
    is carried out whatever its number, and those before it are forgotten.

    The greeting is the version (1 byte), `SLOTS` (1), `FRAME_BYTES` (2), ``depth`` of the receiver (2), ``memory_bytes`` (4), the clock in
    Hz (4), ``build`` (8), and the `COUNTS` (1 each).

    Latency: from a frame's last byte to ``finish`` six cycles, and what its last command takes. Throughput: a frame at a time, from its first
    byte to the end of its answer on the line; a byte written in three cycles and memory's latency, a byte read in two and the same.

    Parameters
    ----------
    memory_bytes : int
        What commands reach, from address 0: 1 to 2³² − 1.
    clock_hz : int
        For the greeting, below 2³².
    build : bytes
        8 bytes, for the greeting: what the board was built from.
    depth : int
        For the greeting, below 2¹⁶.
    address_bits : int
        Of the registers, at most 8: offsets beyond are refused here.

    Members
    -------
    frame : In(stream of ``frame_layout()``)
    memory_request : Out(stream of ``memory_request_layout()``)
        Addresses are below ``memory_bytes``. Each is answered before the next is made.
    memory_response : In(stream of 8)
        One for each request: the byte read, or anything once a byte written can be read by all.
    m_axi : Out(AxiLite(address_bits))
    irq : In(1)
    malformed, wrong, full : In(1)
        Strobes to be counted, of the receiver.
    slot, start, finish, again : Out
        Of `FrameSender`, as the next three.
    byte : Out(stream of 8)
    room : In(9)
    idle : In(1)
    """

    def __init__(self, memory_bytes: int, clock_hz: int, build: bytes, depth: int, address_bits: int) -> None:
        if not 0 < memory_bytes < 1 << 32 or not 0 < clock_hz < 1 << 32 or len(build) != 8 or not 0 < depth < 1 << 16:
            raise ValueError("memory_bytes and clock_hz must be positive and below 2³², depth below 2¹⁶, build 8 bytes")
        if not 2 <= address_bits <= 8:
            raise ValueError(f"an offset is a byte: address_bits must be 2 to 8, not {address_bits}")
        self.memory_bytes = memory_bytes
        self.address_bits = address_bits
        self.identity = b"".join(
            [
                bytes([VERSION, SLOTS]),
                FRAME_BYTES.to_bytes(2, "little"),
                depth.to_bytes(2, "little"),
                memory_bytes.to_bytes(4, "little"),
                clock_hz.to_bytes(4, "little"),
                build,
            ]
        )
        super().__init__(
            {
                "frame": In(stream.Signature(frame_layout())),
                **service(address_bits),
                **{name: In(1) for name in ("malformed", "wrong", "full")},
                "slot": Out(range(SLOTS)),
                "start": Out(1),
                "byte": Out(stream.Signature(8)),
                "finish": Out(1),
                "again": Out(1),
                "room": In(range(FRAME_BYTES)),
                "idle": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        frame = self.frame.payload
        axi = self.m_axi

        first = Signal(8)
        expected = Signal(range(SEQUENCES))
        kept = Signal(range(SLOTS + 1))
        back = Signal(range(SEQUENCES))
        fresh = Signal()
        repeats = Signal()
        answered = Signal()  # the frame in hand was carried out before
        m.d.comb += [
            back.eq(expected - frame.byte),
            fresh.eq(frame.byte[7] | (back == 0)),
            repeats.eq(~fresh & (back <= kept)),
            self.slot.eq(first),
        ]

        over = Signal()  # the frame's last byte was taken
        with m.If(self.frame.valid & self.frame.ready):
            m.d.sync += over.eq(frame.last)

        opcode = Signal(range(len(Opcode)))
        operands = Signal(8 * _MOST_OPERANDS)  # and then what the command answers, the first byte lowest
        missing = Signal(range(_MOST_OPERANDS + 1))  # bytes of the operands, or of the answer
        address = operands[:32]
        size = operands[32:]
        low = self.memory_bytes.bit_length()  # bits of an address and of the end behind it; those above are 0
        carried_out = Signal(8)
        outcome = Signal(Outcome)
        greeted = Signal(range(len(self.identity) + len(COUNTS)))

        needed = Signal(range(FRAME_BYTES))
        far_too_long = Signal()
        operand_count = Signal(range(_MOST_OPERANDS + 1))
        known = Signal()
        with m.Switch(frame.byte):
            for code, count in _OPERAND_BYTES.items():
                with m.Case(code.value):
                    m.d.comb += [operand_count.eq(count), known.eq(1)]
        with m.Switch(opcode):
            with m.Case(Opcode.GREETING):
                m.d.comb += needed.eq(len(self.identity) + len(COUNTS))
            with m.Case(Opcode.READ_REGISTER):
                m.d.comb += needed.eq(4)
            with m.Case(Opcode.READ_MEMORY):
                m.d.comb += [needed.eq(size), far_too_long.eq(size[len(needed) :].any())]
            with m.Case(Opcode.WAIT):
                m.d.comb += needed.eq(1)
        # One counter for the cycles of a WAIT and, in its upper part, for the bytes of memory.
        fewer = Signal(_WAIT_BITS)
        step = Mux(opcode == Opcode.WAIT, 1, 1 << (_WAIT_BITS - len(size)))
        m.d.comb += fewer.eq(operands[-_WAIT_BITS:] - step)
        reaches = Signal(33)
        fits = Signal()
        offset = Signal(8)
        m.d.comb += [
            reaches.eq(address + size),
            fits.eq(~far_too_long & (needed + _TRAILER_BYTES <= self.room)),
            offset.eq(Mux(opcode == Opcode.READ_REGISTER, operands[-8:], operands[8:16])),
            axi.awaddr.eq(operands[8:16]),
            axi.araddr.eq(operands[-8:]),
            axi.wdata.eq(operands[16:]),
            axi.wstrb.eq(0b1111),
            axi.bready.eq(1),
            axi.rready.eq(1),
        ]
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(axi.wready):
            m.d.sync += axi.wvalid.eq(0)
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)

        request = self.memory_request.payload
        written = Signal(8)
        writes = Signal()
        strange = Signal()
        repeated = Signal()
        m.d.comb += [
            request.address.eq(address),
            request.write.eq(writes),
            request.byte.eq(written),
            writes.eq(opcode == Opcode.WRITE_MEMORY),
        ]
        counts = [
            self._count(m, name, event)
            for name, event in zip(COUNTS, (self.malformed, self.wrong, self.full, repeated, strange), strict=True)
        ]
        greeting = Array([*self.identity, *counts])

        def fail(what: Outcome) -> None:
            m.d.sync += outcome.eq(what)
            m.next = "SKIP"

        with m.FSM():
            with m.State("FIRST"):
                m.d.comb += self.frame.ready.eq(self.idle)
                m.d.sync += [answered.eq(~fresh), outcome.eq(Outcome.DONE), carried_out.eq(0)]
                with m.If(self.frame.valid & self.idle):
                    m.d.sync += first.eq(frame.byte)
                    with m.If(fresh):
                        m.d.sync += [
                            expected.eq(frame.byte + 1),
                            kept.eq(Mux(frame.byte[7], 1, Mux(kept == SLOTS, kept, kept + 1))),
                        ]
                        m.next = "ECHO"
                    with m.Elif(repeats):
                        m.d.comb += repeated.eq(1)
                        m.next = "SKIP"
                    with m.Else():
                        m.d.comb += strange.eq(1)
                        m.next = "DROP"
            with m.State("ECHO"):
                m.d.comb += self.start.eq(1)
                m.next = "ECHO FIRST"
            with m.State("ECHO FIRST"):
                self._say(m, first, "NEXT")
            with m.State("NEXT"):
                m.d.comb += self.frame.ready.eq(~over)
                m.d.sync += [opcode.eq(frame.byte), missing.eq(operand_count), greeted.eq(0)]
                with m.If(over):
                    m.next = "TRAILER"
                with m.Elif(self.frame.valid):
                    m.next = "OPERANDS"
                    with m.If(~known):
                        fail(Outcome.UNKNOWN)
            with m.State("OPERANDS"):
                with m.If(missing == 0):
                    m.next = "CARRY OUT"
                with m.Elif(over):
                    fail(Outcome.TRUNCATED)
                with m.Else():
                    m.d.comb += self.frame.ready.eq(1)
                    with m.If(self.frame.valid):
                        m.d.sync += [operands.eq(Cat(operands[8:], frame.byte)), missing.eq(missing - 1)]
            with m.State("CARRY OUT"):
                with m.If(~fits):
                    fail(Outcome.LONG)
                with m.Else(), m.Switch(opcode):
                    with m.Case(Opcode.GREETING):
                        m.next = "GREET"
                    with m.Case(Opcode.READ_REGISTER, Opcode.WRITE_REGISTER):
                        with m.If((offset >> self.address_bits) != 0):
                            fail(Outcome.REFUSED)
                        with m.Elif(opcode == Opcode.READ_REGISTER):
                            m.d.sync += axi.arvalid.eq(1)
                            m.next = "REGISTER"
                        with m.Else():
                            m.d.sync += [axi.awvalid.eq(1), axi.wvalid.eq(1)]
                            m.next = "REGISTER"
                    with m.Case(Opcode.READ_MEMORY, Opcode.WRITE_MEMORY):
                        m.next = "MEMORY"
                        with m.If(reaches > self.memory_bytes):
                            fail(Outcome.OUTSIDE)
                    with m.Case(Opcode.WAIT):
                        m.next = "WAIT"
            with m.State("GREET"):
                m.d.comb += [self.byte.valid.eq(1), self.byte.payload.eq(greeting[greeted])]
                with m.If(self.byte.ready):
                    m.d.sync += greeted.eq(greeted + 1)
                    with m.If(greeted == len(self.identity) + len(COUNTS) - 1):
                        m.next = "CARRIED OUT"
            with m.State("REGISTER"):
                m.d.sync += missing.eq(4)
                with m.If(axi.rvalid):
                    m.d.sync += operands.eq(axi.rdata)
                    m.next = "ANSWER"
                    with m.If(axi.rresp != Response.OKAY):
                        fail(Outcome.REFUSED)
                with m.If(axi.bvalid):
                    m.next = "CARRIED OUT"
                    with m.If(axi.bresp != Response.OKAY):
                        fail(Outcome.REFUSED)
            with m.State("WAIT"):
                m.d.sync += [operands[:8].eq(self.irq), missing.eq(1), operands[-_WAIT_BITS:].eq(fewer)]
                with m.If(self.irq | (operands[-_WAIT_BITS:] == 0)):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [self.byte.valid.eq(1), self.byte.payload.eq(operands[:8])]
                with m.If(self.byte.ready):
                    m.d.sync += [operands.eq(Cat(operands[8:], frame.byte)), missing.eq(missing - 1)]
                    with m.If(missing == 1):
                        m.next = "CARRIED OUT"
            with m.State("MEMORY"):
                m.d.sync += written.eq(frame.byte)
                with m.If(size == 0):
                    m.next = "CARRIED OUT"
                with m.Elif(~writes):
                    m.next = "REQUEST"
                with m.Elif(over):
                    fail(Outcome.TRUNCATED)
                with m.Else():
                    m.d.comb += self.frame.ready.eq(1)
                    with m.If(self.frame.valid):
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.memory_request.valid.eq(1)
                with m.If(self.memory_request.ready):
                    m.next = "RESPONSE"
            with m.State("RESPONSE"):
                m.d.comb += [
                    self.byte.valid.eq(self.memory_response.valid & ~writes),
                    self.byte.payload.eq(self.memory_response.payload),
                    self.memory_response.ready.eq(self.byte.ready | writes),
                ]
                with m.If(self.memory_response.valid & self.memory_response.ready):
                    m.d.sync += operands.eq(Cat((address[:low] + 1)[:low], address[low:], fewer[-len(size) :]))
                    m.next = "MEMORY"
            with m.State("CARRIED OUT"):
                m.d.sync += carried_out.eq(carried_out + 1)
                m.next = "NEXT"
            with m.State("SKIP"):
                m.d.comb += self.frame.ready.eq(~over)
                with m.If(over):
                    m.next = "TRAILER"
                    with m.If(answered):
                        m.next = "AGAIN"
            with m.State("DROP"):
                m.d.comb += self.frame.ready.eq(~over)
                with m.If(over):
                    m.next = "FIRST"
            with m.State("AGAIN"):
                m.d.comb += self.again.eq(1)
                m.next = "FIRST"
            with m.State("TRAILER"):
                self._say(m, carried_out, "OUTCOME")
            with m.State("OUTCOME"):
                self._say(m, outcome, "FINISH")
            with m.State("FINISH"):
                m.d.comb += self.finish.eq(1)
                m.next = "FIRST"
        return m

    def _say(self, m: Module, byte: Value, then: str) -> None:
        m.d.comb += [self.byte.valid.eq(1), self.byte.payload.eq(byte)]
        with m.If(self.byte.ready):
            m.next = then

    def _count(self, m: Module, name: str, event: Value) -> Signal:
        count = Signal(8, name=f"{name}_count")
        m.d.sync += count.eq(count + event)
        return count
