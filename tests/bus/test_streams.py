"""Joining streams: what comes out where, and that only like is joined to like."""

from random import Random

import pytest
from amaranth import Module, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from nibblecore.hdl.bus.streams import choose, command_layout, connect, share


class Junction(wiring.Component):
    """`sources` streams chosen from, or `sinks` shared to."""

    def __init__(self, sources: int, sinks: int, numbers: int) -> None:
        super().__init__(
            {"select": In(range(numbers)), "i": In(stream.Signature(8)).array(sources), "o": Out(stream.Signature(8)).array(sinks)}
        )

    def elaborate(self, platform):
        m = Module()
        if len(self.i) == len(self.o) == 1:
            connect(m, self.i[0], self.o[0])
        elif len(self.o) == 1:
            choose(m, self.select, self.i, self.o[0])
        else:
            share(m, self.select, self.i[0], self.o)
        return m


@pytest.mark.parametrize("more", [0, 1, 4])
@pytest.mark.parametrize("sources, sinks", [(1, 1), (2, 1), (3, 1), (5, 1), (1, 2), (1, 3), (1, 5)])
def test_junction(sources, sinks, more):
    """In every cycle exactly the selected pair sees each other; with a number beyond the last, nobody takes anything."""
    numbers = max(sources, sinks) + more
    dut, rng = Junction(sources, sinks, numbers), Random(1)

    async def process(ctx):
        for _ in range(300):
            selected = rng.randrange(numbers)
            ctx.set(dut.select, selected)
            payloads, valid = [rng.randrange(256) for _ in range(sources)], [rng.randrange(2) for _ in range(sources)]
            ready = [rng.randrange(2) for _ in range(sinks)]
            for port, payload, is_valid in zip(dut.i, payloads, valid, strict=True):
                ctx.set(port.payload, payload)
                ctx.set(port.valid, is_valid)
            for port, is_ready in zip(dut.o, ready, strict=True):
                ctx.set(port.ready, is_ready)
            await ctx.delay(1e-6)
            source, sink = (selected if sources > 1 else 0), (selected if sinks > 1 else 0)
            exist = source < sources and sink < sinks
            for number, port in enumerate(dut.i):
                assert ctx.get(port.ready) == (ready[sink] if exist and number == source else 0)
            for number, port in enumerate(dut.o):
                assert ctx.get(port.valid) == (valid[source] if exist and number == sink else 0)
                if exist and number == sink:
                    assert ctx.get(port.payload) == payloads[source]

    simulator = Simulator(dut)
    simulator.add_testbench(process)
    simulator.run()


LAYOUTS = {"command": command_layout(), "swapped": data.StructLayout({"beats": 16, "address": 32})}


@pytest.mark.parametrize(
    "one, other",
    [
        (8, 9),
        (unsigned(8), signed(8)),
        (signed(9), unsigned(9)),
        (48, LAYOUTS["command"]),
        (LAYOUTS["swapped"], LAYOUTS["command"]),
    ],
)
def test_unlike_streams_are_refused(one, other):
    a, b, c = stream.Signature(one).create(), stream.Signature(other).create(), stream.Signature(one).create()
    m = Module()
    for joined in (lambda: connect(m, a, b), lambda: choose(m, 0, [a, c], b), lambda: share(m, 0, b, [a, c])):
        with pytest.raises(TypeError, match="cannot be joined"):
            joined()
    connect(m, a, c)
