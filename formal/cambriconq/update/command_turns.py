"""Every command is given out whole and in order, no port is given more than its credit, and every beat is told to its port."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.update.command_turns import CommandTurns

__all__ = ["PROOFS"]

_PORTS, _CHUNK, _DEPTH, _BITS = 2, 2, 3, 5


class CommandTurnsSpec(wiring.Component):
    """Two ports of a reader with commands of up to three beats; an address says whose it is. `credit` is what the block believes in."""

    def __init__(self, credit: int = _DEPTH) -> None:
        self.credit = credit
        super().__init__(
            {
                "offers": In(_PORTS),
                "starts": In(_BITS).array(_PORTS),
                "sizes": In(2).array(_PORTS),
                "ready": In(1),
                "beat": In(1),
                "credits": In(_PORTS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.turns = turns = CommandTurns(_PORTS, 1, _CHUNK, _DEPTH + 1, self.credit)
        chunk, given, port = turns.command.payload, Signal(), Signal()
        m.d.comb += [
            turns.command.ready.eq(self.ready),
            turns.beat.eq(self.beat),
            turns.credits.eq(self.credits),
            Assume(~self.beat | turns.busy),
            given.eq(turns.command.valid & self.ready),
            port.eq(chunk.address[_BITS]),
            Assume(~ResetSignal()),
        ]
        waits, held = Signal(), Signal.like(chunk)
        m.d.sync += [waits.eq(turns.command.valid & ~self.ready), held.eq(chunk)]
        m.d.comb += Assert(~waits | (turns.command.valid & (chunk.as_value() == held.as_value())))

        ends = []
        for number in range(_PORTS):
            command, mine = turns.commands[number], Signal(name=f"mine{number}")
            expected, left = Signal(32, name=f"expected{number}"), Signal(2, name=f"left{number}")
            owed, taken, size = Signal(4, name=f"owed{number}"), Signal(name=f"taken{number}"), Signal(2, name=f"size{number}")
            offered = Signal(name=f"offered{number}")
            m.d.comb += [
                command.valid.eq(self.offers[number]),
                command.payload.beats.eq(self.sizes[number]),
                command.payload.address.eq(self.starts[number] | number << _BITS),
                taken.eq(command.valid & command.ready),
                Assume(self.starts[number] < 24),
                mine.eq(given & (port == number)),
                size.eq(Mux(left < _CHUNK, left, _CHUNK)),
                Assert(~taken | (left == 0)),
                Assert(~mine | ((chunk.beats == size) & (size != 0) & (chunk.address == expected))),
                # A port gives a place back only after a beat took it.
                Assume(~self.credits[number] | (owed != 0)),
                Assert(owed <= _DEPTH),
                Assume(
                    ~offered
                    | (
                        self.offers[number]
                        & (self.sizes[number] == held_of(m, self.sizes[number], f"size_held{number}"))
                        & (self.starts[number] == held_of(m, self.starts[number], f"start_held{number}"))
                    )
                ),
            ]
            m.d.sync += [offered.eq(command.valid & ~command.ready), owed.eq(owed + Mux(mine, size, 0) - self.credits[number])]
            with m.If(taken):
                m.d.sync += [expected.eq(command.payload.address), left.eq(command.payload.beats)]
            with m.Elif(mine):
                m.d.sync += [expected.eq(expected + size), left.eq(left - size)]
            ends.append(mine & (left == 1) & (owed == 2))

        # Beat number `which`, whichever that is, goes to the port for which it was asked.
        which, asked, moved, whose = AnyConst(3), Signal(4), Signal(4), Signal()
        m.d.sync += [asked.eq(asked + Mux(given, chunk.beats, 0)), moved.eq(moved + self.beat)]
        with m.If(given & (asked <= which) & (which < asked + chunk.beats)):
            m.d.sync += whose.eq(port)
        m.d.comb += [
            Assert(turns.busy == (moved != asked)),
            Assert(~self.beat | (moved != which) | (turns.port == whose)),
            *(Cover(end) for end in ends),
            Cover(self.beat & (moved == which) & (which == 4) & whose),
        ]
        return m


def held_of(m: Module, value: Any, name: str) -> Signal:
    """`value` of the cycle before."""
    held = Signal.like(value, name=name)
    m.d.sync += held.eq(value)
    return held


PROOFS = [
    Proof(
        name="cambriconq.update.command_turns.beats",
        spec=CommandTurnsSpec,
        fault=lambda: CommandTurnsSpec(_DEPTH + 1),
        engine="bmc",
        depth=8,
        cover_depth=12,
        reason="8 cycles use up the credit of both ports, with commands of more than a chunk, and move beats of each; no reset, of which "
        "the ports would have to know",
    )
]
