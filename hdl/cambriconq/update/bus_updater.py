"""Carries out WGSTORE over the bus, for want of an engine beside the memory."""

from amaranth import Array, Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout, connect, write_layout
from nibblecore.hdl.cambriconq.movers.memory_commands import WORD_BYTES
from nibblecore.hdl.cambriconq.movers.memory_gather import MemoryGather
from nibblecore.hdl.cambriconq.movers.memory_scatter import MemoryScatter
from nibblecore.hdl.cambriconq.program.job import Shape

from .command_turns import CommandTurns
from .ndp_rows import OPERANDS
from .ndpo import Ndpo

__all__ = ["BusUpdater"]

_CHUNK = 8
_QUEUE = 2 * _CHUNK
"""Beats; a chunk leaves while another is put together."""
_RESULTS = 1 << (Ndpo.LATENCY + 2).bit_length()
"""Weights in the lane or behind it."""


class BusUpdater(wiring.Component):
    """Reads rows × cols weights and moments from memory, updates them with one lane, and writes them back.

    Chunks of w, m and v come in turn, so that all three flow at once though they share the bus; results leave the same way. Each word is
    read once and written once, with no word beside it. Updates of different words are in no order: w, m and v and the rows of each must
    not overlap. A bus error is the DMAs' to tell; the update goes on with what came.

    Latency: the first read command 2 to 4 cycles after ``start``; ``done`` when every write has been answered. Throughput: a weight a cycle,
    or what the bus lets through: three words read and three written a weight.

    Parameters
    ----------
    bus_bytes : int
        Bytes in a beat, a power of two in 8..128.

    Members
    -------
    start : In(1)
        Not from one start until its ``done``.
    shape : In(Shape)
    w, m, v : In(32)
        Byte addresses of the first weight and of its moments, multiples of 4.
    mem_row : In(32)
        Bytes from row to row, of all three.
    optimizer : In(ArrayLayout(32, 6))
        c1..c5, ε, in FP32.
    use_m, use_rsqrt : In(1)
        As in `Ndpo`. All of these stand still from ``start`` until ``done``.
    i : In(stream of 32 bits)
        Gradients, row by row, in FP32.
    done : Out(1)
        One cycle; the cycle after ``start`` if the shape is empty.
    read_command : Out(stream of `command_layout`)
    read_data : In(stream of 8·bus_bytes bits)
        To and from an `AxiReader`.
    write_command : Out(stream of `command_layout`)
    write_data : Out(stream of `write_layout`)
        To an `AxiWriter`.
    writer_idle : In(1)
        ``idle`` of the writer.
    """

    def __init__(self, bus_bytes: int) -> None:
        self.bus_bytes = bus_bytes
        command = stream.Signature(command_layout())
        super().__init__(
            {
                "start": In(1),
                "shape": In(Shape),
                **{name: In(32) for name in OPERANDS},
                "mem_row": In(32),
                "optimizer": In(data.ArrayLayout(32, 6)),
                "use_m": In(1),
                "use_rsqrt": In(1),
                "i": In(stream.Signature(32)),
                "done": Out(1),
                "read_command": Out(command),
                "read_data": In(stream.Signature(8 * bus_bytes)),
                "write_command": Out(command),
                "write_data": Out(stream.Signature(write_layout(bus_bytes))),
                "writer_idle": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.results = results = SyncFIFO(width=32 * len(OPERANDS), depth=_RESULTS)
        gathers, scatters = [MemoryGather(self.bus_bytes) for _ in OPERANDS], [MemoryScatter(self.bus_bytes) for _ in OPERANDS]
        for name, gather, scatter in zip(OPERANDS, gathers, scatters, strict=True):
            m.submodules[f"gather_{name}"], m.submodules[f"scatter_{name}"] = gather, scatter
            for part in (gather, scatter):
                m.d.comb += [
                    part.start.eq(self.start),
                    part.shape.eq(self.shape),
                    part.place.at.eq(getattr(self, name)),
                    part.place.row.eq(self.mem_row),
                    part.place.col.eq(WORD_BYTES),
                ]
        self._read(m, gathers)
        self._update(m, gathers, results)
        self._write(m, scatters, results)
        return m

    def _read(self, m: Module, gathers: list[MemoryGather]) -> None:
        """Beats from the bus to the queue of the operand whose turn they are."""
        depth = max(_QUEUE, 256 // self.bus_bytes)  # for a memory latency of 40 cycles at the full rate
        m.submodules.read_turns = turns = CommandTurns(len(OPERANDS), self.bus_bytes, _CHUNK, depth, depth)
        connect(m, turns.command, self.read_command)
        m.d.comb += [self.read_data.ready.eq(turns.busy), turns.beat.eq(self.read_data.valid & turns.busy)]
        for number, (name, gather) in enumerate(zip(OPERANDS, gathers, strict=True)):
            m.submodules[f"read_{name}"] = queue = SyncFIFO(width=8 * self.bus_bytes, depth=depth)
            connect(m, gather.command, turns.commands[number])
            connect(m, queue.r_stream, gather.data)
            m.d.comb += [
                queue.w_data.eq(self.read_data.payload),
                queue.w_en.eq(turns.beat & (turns.port == number)),
                turns.credits[number].eq(queue.r_rdy & queue.r_en),
            ]

    def _update(self, m: Module, gathers: list[MemoryGather], results: SyncFIFO) -> None:
        """A gradient meets its weight and moments in the lane, which never waits: what is in it has a place behind it."""
        m.submodules.lane = lane = Ndpo()
        room = Signal(range(_RESULTS + 1), init=_RESULTS)
        begins = Signal()
        m.d.comb += [
            begins.eq(Cat(gather.o.valid for gather in gathers).all() & self.i.valid & (room != 0)),
            self.i.ready.eq(begins),
            lane.i_valid.eq(begins),
            lane.i_g.eq(self.i.payload),
            lane.use_m.eq(self.use_m),
            lane.use_rsqrt.eq(self.use_rsqrt),
            results.w_en.eq(lane.o_valid),
            results.w_data.eq(Cat(getattr(lane, f"o_{name}") for name in OPERANDS)),
        ]
        m.d.sync += room.eq(room - begins + (results.r_rdy & results.r_en))
        for number, name in enumerate(("c1", "c2", "c3", "c4", "c5", "epsilon")):
            m.d.comb += getattr(lane, name).eq(self.optimizer[number])
        for name, gather in zip(OPERANDS, gathers, strict=True):
            m.d.comb += [getattr(lane, f"i_{name}").eq(gather.o.payload.words[:32]), gather.o.ready.eq(begins)]

    def _write(self, m: Module, scatters: list[MemoryScatter], results: SyncFIFO) -> None:
        """Results to all scatters at once; their beats to a queue each, and from there to the bus in turn."""
        m.submodules.write_turns = turns = CommandTurns(len(OPERANDS), self.bus_bytes, _CHUNK, _QUEUE, 0)
        connect(m, turns.command, self.write_command)
        layout = self.write_data.payload.shape()
        taken = Signal()
        all_idle = Signal()
        queues = [SyncFIFO(width=layout.size, depth=_QUEUE) for _ in OPERANDS]
        m.d.comb += [
            taken.eq(results.r_rdy & Cat(scatter.i.ready for scatter in scatters).all()),
            results.r_en.eq(taken),
            all_idle.eq(self.writer_idle & ~Cat(queue.r_rdy for queue in queues).any()),
            self.write_data.valid.eq(turns.busy),
            turns.beat.eq(turns.busy & self.write_data.ready),
            self.write_data.payload.eq(Array(queue.r_data for queue in queues)[turns.port]),
            self.done.eq(scatters[0].done),  # all end at once
        ]
        for number, (name, scatter, queue) in enumerate(zip(OPERANDS, scatters, queues, strict=True)):
            m.submodules[f"write_{name}"] = queue
            connect(m, scatter.command, turns.commands[number])
            m.d.comb += [
                scatter.i.payload.words.eq(results.r_data.word_select(number, 32)),
                scatter.i.valid.eq(taken),
                scatter.writer_idle.eq(all_idle),
                queue.w_data.eq(scatter.data.payload),
                queue.w_en.eq(scatter.data.valid),
                scatter.data.ready.eq(queue.w_rdy),
                turns.credits[number].eq(queue.w_rdy & queue.w_en),
                queue.r_en.eq(turns.beat & (turns.port == number)),
            ]
