"""Fetches a program's instructions ahead of their turn."""

from amaranth import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout

from .errors import ErrorCode
from .isa import INSTRUCTION_BYTES

__all__ = ["Fetcher", "fetched_layout"]


def fetched_layout() -> data.StructLayout:
    """An instruction, or the code that says why there is none."""
    return data.StructLayout({"instruction": 8 * INSTRUCTION_BYTES, "code": 4})


class Fetcher(wiring.Component):
    """The instructions from ``entry`` on as a stream, each asked for when the one before has arrived and there is room for it.

    So a bus error belongs to the instruction that met it, although others have been fetched ahead. What cannot be fetched
    (MISALIGNED, MEMORY_RANGE, BUS_READ) comes as a code in its turn, and nothing after it.

    Latency: a command two cycles after ``start``; an instruction is on offer two cycles after its last beat.
    Throughput: an instruction in b + L + 2 cycles, b its beats, L the cycles from the taking of a command to its first beat.

    Parameters
    ----------
    line_bytes : int
        Of a beat, a power of two.
    depth : int
        Instructions that may wait.

    Members
    -------
    start : In(1)
        Only while ``idle``.
    entry : In(32)
        Byte address of the first instruction; counts with ``start``.
    memory_bytes : In(33)
        Addresses below it may be touched.
    hold : In(1)
        Ask for nothing; what has been asked for still arrives.
    drop : In(1)
        Forget all instructions, and ask for no more until the next ``start``.
    idle : Out(1)
        Nothing is under way.
    o : Out(stream of `fetched_layout`)
    command : Out(stream of `command_layout`)
        To an `AxiReader`; an instruction a command.
    data : In(stream of 8·line_bytes bits)
        From it.
    read_error : In(1)
        Sticky, of that reader.
    """

    def __init__(self, line_bytes: int, depth: int = 4) -> None:
        self.line_bytes, self.depth = line_bytes, depth
        super().__init__(
            {
                "start": In(1),
                "entry": In(32),
                "memory_bytes": In(33),
                "hold": In(1),
                "drop": In(1),
                "idle": Out(1),
                "o": Out(stream.Signature(fetched_layout())),
                "command": Out(stream.Signature(command_layout())),
                "data": In(stream.Signature(8 * line_bytes)),
                "read_error": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fetched = Signal(fetched_layout())
        m.submodules.queue = queue = ResetInserter(self.drop)(SyncFIFO(width=fetched.shape().size, depth=self.depth))
        beats = INSTRUCTION_BYTES // self.line_bytes
        # As wide as the memory's size: behind its last address there is none.
        address = Signal(33)
        beat = Signal(range(max(2, beats)))
        dropped = Signal()
        instruction = Signal(8 * INSTRUCTION_BYTES, reset_less=True)
        command = self.command
        m.d.comb += [
            queue.w_data.eq(fetched),
            fetched.instruction.eq(instruction),
            self.o.payload.eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
            command.payload.address.eq(address),
            command.payload.beats.eq(beats),
        ]
        with m.If(self.drop):
            m.d.sync += dropped.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.idle.eq(1)
                m.d.sync += [address.eq(self.entry), dropped.eq(0)]
                with m.If(self.start):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.idle.eq(self.hold)
                with m.If(self.drop | dropped):
                    m.next = "IDLE"
                with m.Elif(queue.w_rdy & ~self.hold):
                    misaligned, beyond = (address & (INSTRUCTION_BYTES - 1)).any(), address + INSTRUCTION_BYTES > self.memory_bytes
                    with m.If(misaligned | beyond):
                        m.d.comb += [
                            queue.w_en.eq(1),
                            fetched.code.eq(Mux(misaligned, int(ErrorCode.MISALIGNED), int(ErrorCode.MEMORY_RANGE))),
                        ]
                        m.next = "STOPPED"
                    with m.Else():
                        m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += command.valid.eq(1)
                with m.If(command.ready):
                    m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += self.data.ready.eq(1)
                with m.If(self.data.valid):
                    m.d.sync += [instruction.eq(Cat(instruction, self.data.payload)[len(self.data.payload) :]), beat.eq(beat + 1)]
                    with m.If(beat == beats - 1):
                        m.d.sync += [beat.eq(0), address.eq(address + INSTRUCTION_BYTES)]
                        m.next = "PUT"
            with m.State("PUT"):
                m.d.comb += [
                    queue.w_en.eq(~dropped & ~self.drop),
                    fetched.code.eq(Mux(self.read_error, ErrorCode.BUS_READ, ErrorCode.NONE)),
                ]
                m.next = "ASK"
                with m.If(self.read_error):
                    m.next = "STOPPED"
            with m.State("STOPPED"):
                m.d.comb += self.idle.eq(1)
                with m.If(self.drop | dropped):
                    m.next = "IDLE"
        return m
