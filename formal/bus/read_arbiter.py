"""Every burst of every port is asked for once and its beats reach that port, in order; ports are served in turn."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.bus.read_arbiter import AxiReadArbiter

from .channel import assert_holds

__all__ = ["PROOFS"]

_PORTS, _DEPTH = 3, 2


class ReadArbiterSpec(wiring.Component):
    """Ports that number their bursts modulo 4, of one or two beats, and a memory that answers a burst with its address."""

    def __init__(self, block: type[AxiReadArbiter] = AxiReadArbiter) -> None:
        self.block = block
        super().__init__(
            {"offers": In(_PORTS), "doubles": In(_PORTS), "readies": In(_PORTS), "arready": In(1), "rvalid": In(1), "rresp": In(2)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.arbiter = arbiter = self.block(4, _PORTS, _DEPTH)
        axi = arbiter.m_axi

        # Addresses that the memory has taken and not answered whole, oldest first.
        address_bits = 2 + 2 + 1  # port, its burst, and whether that has two beats
        owed = Array([Signal(address_bits, name=f"owed{number}") for number in range(2)])
        level, position = Signal(range(4)), Signal()
        asked, arrived, ended = Signal(), Signal(), Signal()
        m.d.comb += [
            axi.arready.eq(self.arready),
            axi.rvalid.eq(self.rvalid & (level != 0)),
            axi.rresp.eq(self.rresp),
            axi.rdata.eq(Cat(owed[0], position)),
            axi.rlast.eq(position == owed[0][0]),
            asked.eq(axi.arvalid & axi.arready),
            arrived.eq(axi.rvalid & axi.rready),
            ended.eq(arrived & axi.rlast),
            Assert(level <= _DEPTH),
            Assert(~axi.arvalid | (axi.arlen == axi.araddr[0])),
        ]
        m.d.sync += level.eq(level + asked - ended)
        with m.If(arrived):
            m.d.sync += position.eq(~axi.rlast & ~position)
        with m.If(ended):
            m.d.sync += owed[0].eq(owed[1])
        with m.If(asked):
            m.d.sync += owed[(level - ended)[:1]].eq(axi.araddr)
        assert_holds(m, "ar", axi.arvalid, axi.arready, axi.araddr, axi.arlen)

        served = [Signal(name=f"served{number}") for number in range(_PORTS)]
        for number, port in enumerate(arbiter.ports):
            bursts, answered, beat = (Signal(2, name=f"{name}{number}") for name in ("bursts", "answered", "beat"))
            waiting, length, double = (
                Signal(name=f"waiting{number}"),
                Signal(name=f"length{number}"),
                Signal(name=f"double{number}"),
            )
            passed_over = Signal(range(_PORTS + 1), name=f"passed_over{number}")
            m.d.comb += [
                double.eq(Mux(waiting, length, self.doubles[number])),
                port.arvalid.eq(self.offers[number]),
                Assume(~waiting | port.arvalid),
                port.araddr.eq(Cat(double, bursts, Signal(2, init=number))),
                port.arlen.eq(double),
                port.rready.eq(self.readies[number]),
                served[number].eq(port.arvalid & port.arready),
                Assert(passed_over < _PORTS),
            ]
            others = Cat(other for place, other in enumerate(served) if place != number).any()
            m.d.sync += [waiting.eq(port.arvalid & ~port.arready), length.eq(double), bursts.eq(bursts + served[number])]
            m.d.sync += passed_over.eq(Mux(port.arvalid & ~port.arready, passed_over + others, 0))
            with m.If(port.rvalid):
                m.d.comb += [
                    Assert(port.rdata[1:6] == Cat(answered, Signal(2, init=number), beat[0])),
                    Assert(port.rresp == self.rresp),
                    Assert(port.rlast == (beat[0] == port.rdata[0])),
                ]
            with m.If(port.rvalid & port.rready):
                m.d.sync += [beat.eq(~port.rlast & ~beat[0]), answered.eq(answered + port.rlast)]
        # A beat that moves moves at one port.
        moves, taken = Signal(_PORTS), Signal()
        m.d.comb += moves.eq(Cat(port.rvalid & port.rready for port in arbiter.ports))
        m.d.sync += taken.eq(Cat(served).any())
        m.d.comb += [
            Assert(arrived == moves.any()),
            Assert((moves & (moves - 1))[:_PORTS] == 0),
            Assert(~taken | axi.arvalid),
            Cover(ended & (level == 2) & moves[2]),
            Cover(served[0] & ended & moves[1]),
        ]
        return m


class GenerousArbiter(AxiReadArbiter):
    """Shows port 1 the beats of the others too."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.ports[1].rvalid.eq(self.m_axi.rvalid)
        return m


class HastyArbiter(AxiReadArbiter):
    """Changes the address on offer when a burst ends."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.m_axi.rvalid & self.m_axi.rready & self.m_axi.rlast):
            m.d.sync += self.m_axi.araddr.eq(self.ports[0].araddr)
        return m


PROOFS = [
    Proof(
        name="bus.read_arbiter.beats",
        spec=ReadArbiterSpec,
        fault=lambda: ReadArbiterSpec(GenerousArbiter),
        reason="three ports, bursts of one or two beats and two of them under way bound the counters; all may stall at any time",
    ),
    Proof(
        name="bus.read_arbiter.address_holds",
        spec=ReadArbiterSpec,
        fault=lambda: ReadArbiterSpec(HastyArbiter),
        slow=True,
        reason="the same specification against another fault",
    ),
]
