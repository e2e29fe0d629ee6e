"""Lets the commands of several units take turns at one DMA."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout

__all__ = ["CommandTurns"]

_RUNS = 16


class CommandTurns(wiring.Component):
    """Cuts the commands of several ports into chunks, gives them to a DMA in turn, and says whose each beat is.

    A port has a credit in beats, one for every beat that can move without waiting: of a reader, places free in a queue for the
    port's beats; of a writer, beats that already stand in one. A chunk is given out only when the credit covers all of it. So no port's
    beats ever stand in the way of another's, whatever the ports wait for among themselves, provided a queue holds a chunk.

    Latency: a chunk is on offer the cycle after its command was taken if it is the port's turn. Throughput: a chunk a cycle, of one port a
    chunk in as many cycles as there are ports; up to 16 chunks have beats under way.

    Parameters
    ----------
    ports : int
        At least 2.
    bus_bytes : int
        Bytes in a beat, a power of two.
    chunk : int
        Beats given out at once, at most.
    depth, credit : int
        Credit of a port, at most and at first; ``depth`` is at least ``chunk``. ValueError if one is out of range.

    Members
    -------
    commands : In(stream of `command_layout`).array(ports)
    credits : In(ports)
        Ports whose credit grows by a beat, a bit for each.
    command : Out(stream of `command_layout`)
        Chunks, to the DMA.
    busy : Out(1)
        Beats are due; the next one is that of ``port``.
    port : Out(range(ports))
    beat : In(1)
        It moves; only while ``busy``.
    """

    def __init__(self, ports: int, bus_bytes: int, chunk: int, depth: int, credit: int) -> None:
        if ports < 2 or not 1 <= chunk <= depth or not 0 <= credit <= depth:
            raise ValueError(f"{ports} ports, chunks of {chunk}, credit of {credit} up to {depth} beats: out of range")
        self.ports, self.bus_bytes, self.chunk, self.depth, self.credit = ports, bus_bytes, chunk, depth, credit
        commands = stream.Signature(command_layout())
        super().__init__(
            {
                "commands": In(commands).array(ports),
                "credits": In(ports),
                "command": Out(commands),
                "busy": Out(1),
                "port": Out(range(ports)),
                "beat": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        run_layout = data.StructLayout({"port": range(self.ports), "last": range(self.chunk)})  # last beat, from 0
        m.submodules.runs = runs = SyncFIFO(width=run_layout.size, depth=_RUNS)
        turn = Signal(range(self.ports))
        given = Signal()
        beats = Signal(range(self.chunk + 1))
        run = Signal(run_layout)
        chunk = self.command.payload
        m.d.comb += [
            given.eq(self.command.valid & self.command.ready),
            chunk.beats.eq(beats),
            runs.w_en.eq(given),
            run.port.eq(turn),
            run.last.eq(beats - 1),
            runs.w_data.eq(run),
        ]
        with m.If(given | ~self.command.valid):
            m.d.sync += turn.eq(Mux(turn == self.ports - 1, 0, turn + 1))

        for number, command in enumerate(self.commands):
            address, left = Signal(32, name=f"address{number}", reset_less=True), Signal(16, name=f"left{number}")
            credit = Signal(range(self.depth + 1), name=f"credit{number}", init=self.credit)
            mine, size = Signal(name=f"turn_of{number}"), Signal.like(beats, name=f"beats{number}")
            m.d.comb += [command.ready.eq(left == 0), mine.eq(turn == number), size.eq(Mux(left < self.chunk, left, self.chunk))]
            with m.If(mine):
                m.d.comb += [
                    self.command.valid.eq((left != 0) & (credit >= size) & runs.w_rdy),
                    chunk.address.eq(address),
                    beats.eq(size),
                ]
            m.d.sync += credit.eq(credit + self.credits[number] - Mux(mine & given, size, 0))
            with m.If(mine & given):
                m.d.sync += [left.eq(left - size), address.eq(address + size * self.bus_bytes)]
            with m.Elif(command.valid & command.ready):
                m.d.sync += [left.eq(command.payload.beats), address.eq(command.payload.address)]

        due = Signal(run_layout)
        moved = Signal(range(self.chunk))
        m.d.comb += [
            due.eq(runs.r_data),
            self.busy.eq(runs.r_rdy),
            self.port.eq(due.port),
            runs.r_en.eq(self.beat & (moved == due.last)),
        ]
        with m.If(self.beat):
            m.d.sync += moved.eq(Mux(runs.r_en, 0, moved + 1))
        return m
