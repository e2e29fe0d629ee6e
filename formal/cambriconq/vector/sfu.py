"""Results leave in the order of the elements, none is lost, and a row's elements meet its partial result."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In
from nibblecore.formal.arith.fp32 import delayed
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.fp32 import FP32
from nibblecore.hdl.arith.fp32_add import Fp32Add
from nibblecore.hdl.arith.fp32_mul import Fp32Mul
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.cambriconq.vector.sfu import ROWS, Element, Operation, Sfu
from nibblecore.hdl.cambriconq.vector.sfu_function import SfuFunction

__all__ = ["PROOFS"]

_LATENCY = 5
_NEUTRAL = 0x80000000


class _Xor(Fp32Add):
    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.o.eq(delayed(m, self.a ^ self.b, self.LATENCY, "xor"))
        return m


class _XorMul(Fp32Mul):
    """Another function of both operands than the adder's."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.o.eq(delayed(m, ~(self.a ^ self.b), self.LATENCY, "xor"))
        return m


class _Delay(SfuFunction):
    LATENCY = _LATENCY

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += [
            self.o.eq(delayed(m, self.i, _LATENCY, "i")),
            self.o_valid.eq(delayed(m, self.i_valid, _LATENCY, "valid", reset_less=False)),
        ]
        return m


class SmallSfu(Sfu):
    """Simple arithmetic bit by bit, functions of fewer cycles, and fewer places for results."""

    SWITCH = _LATENCY - Sfu.LOOP
    _DEPTHS = 3, 3
    _ADD, _MUL, _FUNCTION = _Xor, _XorMul, _Delay

    def _operands(self, m: Module, element: Any, continues: Any, previous: Any) -> tuple[Signal, Signal]:
        x, y = Signal(FP32.width), Signal(FP32.width)
        m.d.sync += [
            x.eq(Mux(continues, previous, element.a)),
            y.eq(Mux(continues, element.a, Mux(element.horizontal, _NEUTRAL, element.b))),
        ]
        return x, y


class HastySfu(SmallSfu):
    """Lets a sum meet a function's result."""

    SWITCH = SmallSfu.SWITCH - 1


class SfuSpec(wiring.Component):
    """Any elements of sums, products and functions, rows begun or not, any idling and back-pressure, any reset.

    One result, of any number, is followed: what it should be is known when its last element is taken.
    """

    def __init__(self, block: type[Sfu] = SmallSfu) -> None:
        self.block = block
        super().__init__({"i": In(stream.Signature(Element)), "o_ready": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut = dut = self.block()
        element, o = self.i.p, dut.o
        connect(m, self.i, dut.i)
        m.d.comb += o.ready.eq(self.o_ready)
        adds, multiplies, is_function = (element.operation == kind for kind in (Operation.ADD, Operation.MUL, Operation.FUNCTION))
        m.d.comb += Assume(adds | multiplies | is_function)

        # One bit stands for all: they do not meet.
        rows = Array(Signal(name=f"row{n}") for n in range(ROWS))
        a, b, now = element.a[-1], element.b[-1], Signal()
        left = Mux(element.horizontal & ~element.first, rows[element.row], a)
        right = Mux(element.horizontal, Mux(element.first, _NEUTRAL >> 31, a), b)
        m.d.comb += now.eq(Mux(is_function, a, left ^ right ^ multiplies))
        taken, given = Signal(), Signal()
        sent, received, followed = Signal(4), Signal(4), AnyConst(4)
        expected = Signal()
        m.d.comb += [
            taken.eq(self.i.valid & dut.i.ready),
            given.eq(taken & (is_function | ~element.horizontal | element.last)),
            Assume(sent != 15),
        ]
        with m.If(taken & element.horizontal & ~is_function):
            m.d.sync += rows[element.row].eq(now)
        with m.If(given):
            m.d.sync += sent.eq(sent + 1)
            with m.If(sent == followed):
                m.d.sync += expected.eq(now)
        with m.If(o.valid):
            m.d.comb += Assert(received < sent)
            with m.If(received == followed):
                m.d.comb += Assert(o.payload[-1] == expected)
            with m.If(o.ready):
                m.d.sync += received.eq(received + 1)

        # What is offered is held; and whatever was sent comes out.
        waited, payload = Signal(), Signal()
        quiet = Signal(range(self.block.LOOP + _LATENCY + 4))
        m.d.sync += [waited.eq(o.valid & ~o.ready), payload.eq(o.payload[-1])]
        m.d.sync += quiet.eq(Mux(taken | o.valid, 0, quiet + (quiet != _LATENCY + 3)))
        with m.If(waited):
            m.d.comb += Assert(o.valid & (o.payload[-1] == payload))
        with m.If(quiet == _LATENCY + 3):
            m.d.comb += Assert(received == sent)
        kinds = Signal(2)
        with m.If(given):
            m.d.sync += kinds.eq(kinds | Cat(is_function, element.horizontal & ~element.first & ~is_function))
        m.d.comb += [Cover((received == 3) & kinds.all()), Cover(self.i.valid & ~dut.i.ready & (sent == 3) & (received == 0))]
        return m


PROOFS = [
    Proof(
        name="cambriconq.vector.sfu.order",
        spec=SfuSpec,
        fault=lambda: SfuSpec(HastySfu),
        engine="bmc",
        depth=16,
        cover_depth=18,
        reason="16 cycles fill and empty every part; arithmetic is replaced by exclusive or, functions take five cycles and three "
        "results have a place, so that all of it meets within them",
    )
]
