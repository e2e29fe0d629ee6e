"""The scalar function unit: arithmetic of the vector instructions."""

from itertools import pairwise

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.arith.fp32 import FP32, unpack
from nibblecore.hdl.arith.fp32_add import Fp32Add
from nibblecore.hdl.arith.fp32_mul import Fp32Mul
from nibblecore.hdl.cambriconq.program.isa import Unary

from .sfu_function import SfuFunction

__all__ = ["ROWS", "Element", "Operation", "Sfu"]

ROWS = 4
"""Rows that may be reduced at once: as many as a partial result takes cycles."""

_ONE, _MINUS_ZERO = 0x3F800000, 0x80000000


class Operation(enum.Enum, shape=3):  # type: ignore[call-arg]
    """What is done with an element."""

    ADD = 0
    SUB = 1
    MUL = 2
    MAX = 3
    STEP = 4
    """1 where a ≥ b, else 0."""
    FUNCTION = 5


class Element(data.Struct):
    """One element of a vector instruction."""

    operation: Operation
    function: Unary
    horizontal: 1
    """Combine ``a`` with the elements of ``row`` before it; ``b`` counts for nothing."""
    row: range(ROWS)
    first: 1
    last: 1
    a: 32
    b: 32


class _Issued(data.Struct):
    """What goes along with the operands."""

    horizontal: 1
    row: range(ROWS)
    last: 1
    multiply: 1


class Sfu(wiring.Component):
    """VADD, VSUB, VMUL, VMAX, VSTEP, VFUN and HADD, HMUL, HMAX in FP32, an element at a time, results in the order of the elements.

    Every operation is rounded on its own (docs/cambriconq.md). The greater of ±0 is +0; if either operand is NaN the greater is NaN,
    and a ≥ b is false. Every NaN result is 0x7FC00000.

    With ``horizontal``, legal for ADD, MUL and MAX, the elements of a row are combined in the order they come in, the first alone with
    nothing; the result leaves with ``last``. Up to `ROWS` rows may be interleaved. An element that is not the first of its row, where
    none is under way, is combined with what an earlier row left, after a reset with 0.

    Latency: from the element (the last of its row) to ``o.valid`` `LATENCY` = 6 cycles, of functions `FUNCTION_LATENCY` = 15, while nothing
    waits.
    Throughput: an element a cycle. An element of a row waits until `LOOP` = 4 cycles after the one before, so that a row alone takes
    `LOOP` cycles an element and `ROWS` interleaved rows one. After a function any other operation waits `SWITCH` = 9 cycles.

    A reset drops everything inside.

    Parameters
    ----------
    functions : bool
        Whether it can do FUNCTION, which is illegal else.

    Members
    -------
    i : In(stream of Element)
        ``ready`` depends on the element.
    o : Out(stream of 32 bits)
        Results in FP32.
    """

    LOOP = 1 + Fp32Add.LATENCY
    LATENCY = LOOP + 2
    FUNCTION_LATENCY = SfuFunction.LATENCY + 2
    SWITCH = SfuFunction.LATENCY - LOOP
    # The pipelines cannot wait, so that there is a place for every result on its way: with functions, and without.
    _DEPTHS = FUNCTION_LATENCY + 1, LATENCY + 1
    # The proof puts simpler parts here.
    _ADD: type[Fp32Add] = Fp32Add
    _MUL: type[Fp32Mul] = Fp32Mul
    _FUNCTION: type[SfuFunction] = SfuFunction

    def __init__(self, functions: bool = True) -> None:
        self.functions = functions
        assert Fp32Add.LATENCY == Fp32Mul.LATENCY and self.LOOP == ROWS
        super().__init__({"i": In(stream.Signature(Element)), "o": Out(stream.Signature(FP32.width))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.add = add = self._ADD()
        m.submodules.mul = mul = self._MUL()
        depth = self._DEPTHS[not self.functions]
        m.submodules.results = results = SyncFIFOBuffered(width=FP32.width, depth=depth)
        i, o = self.i, self.o
        element = i.p
        taken = Signal()
        is_function = Signal()
        result = Signal(FP32.width)
        m.d.comb += [taken.eq(i.valid & i.ready), is_function.eq(self.functions & (element.operation == Operation.FUNCTION))]

        # What was issued, by cycles since: the last is that of the result.
        issued = [Signal(_Issued, name=f"issued{stage}", reset_less=True) for stage in range(1, self.LOOP + 1)]
        valid = Signal(self.LOOP)
        m.d.sync += [
            valid.eq(Cat(taken & ~is_function, valid)),
            issued[0].horizontal.eq(element.horizontal),
            issued[0].row.eq(element.row),
            issued[0].last.eq(element.last),
            issued[0].multiply.eq(element.operation == Operation.MUL),
            *(after.eq(before) for before, after in pairwise(issued)),
        ]

        # The rows' partial results.
        partial = Signal(data.ArrayLayout(FP32.width, ROWS))
        arriving = issued[-1]
        with m.If(valid[-1] & arriving.horizontal):
            m.d.sync += partial[arriving.row].eq(result)
        previous = Signal(FP32.width)
        continues = Signal()
        m.d.comb += [
            previous.eq(Mux(valid[-1] & arriving.horizontal & (arriving.row == element.row), result, partial[element.row])),
            continues.eq(element.horizontal & ~element.first),
        ]

        # An element waits for the one before in its row, for functions that its result would overtake, and for a place for it.
        pending = Cat(
            v & stage.horizontal & (stage.row == element.row) for v, stage in zip(valid[:-1], issued[:-1], strict=True)
        ).any()
        unsettled = Signal(range(self.SWITCH + 1))
        places = Signal(range(depth + 1), init=depth)
        gives = Signal()
        m.d.comb += [
            i.ready.eq((places != 0) & (is_function | (unsettled == 0) & ~(continues & pending))),
            gives.eq(taken & (is_function | ~element.horizontal | element.last)),
        ]
        m.d.sync += places.eq(places - gives + (o.valid & o.ready))
        with m.If(taken & is_function):
            m.d.sync += unsettled.eq(self.SWITCH)
        with m.Elif(unsettled != 0):
            m.d.sync += unsettled.eq(unsettled - 1)

        x, y = self._operands(m, element, continues, previous)
        m.d.comb += [
            add.i_valid.eq(valid[0]),
            add.a.eq(x),
            add.b.eq(y),
            mul.i_valid.eq(valid[0]),
            mul.a.eq(x),
            mul.b.eq(y),
            result.eq(Mux(arriving.multiply, mul.o, add.o)),
            results.w_data.eq(result),
            results.w_en.eq(valid[-1] & (~arriving.horizontal | arriving.last)),
            o.payload.eq(results.r_data),
            o.valid.eq(results.r_rdy),
            results.r_en.eq(o.ready),
        ]
        if self.functions:
            m.submodules.function = function = self._FUNCTION()
            m.d.comb += [function.i_valid.eq(taken & is_function), function.unary.eq(element.function), function.i.eq(element.a)]
            with m.If(function.o_valid):
                m.d.comb += [results.w_data.eq(function.o), results.w_en.eq(1)]
        return m

    def _operands(self, m: Module, element: data.View, continues: Value, previous: Value) -> tuple[Signal, Signal]:
        """Both operands of adder and multiplier, a cycle later.

        The greater operand, and the 1 or 0 of a comparison, go through the adder too: plus −0 changes nothing but NaNs, which it makes
        the quiet one. Likewise the first element of a row meets the neutral one.
        """
        a = Signal(FP32.width)
        b = Signal(FP32.width)
        m.d.comb += [a.eq(Mux(continues, previous, element.a)), b.eq(Mux(continues, element.a, element.b))]
        left, right = unpack(m, a, FP32, "left"), unpack(m, b, FP32, "right")
        less = Signal()
        both_zero = Signal()
        m.d.comb += [
            less.eq(Mux(left.sign ^ right.sign, left.sign, Mux(left.sign, a[:-1] > b[:-1], a[:-1] < b[:-1]))),
            both_zero.eq(left.zero & right.zero),
        ]
        x = Signal(FP32.width, reset_less=True)
        y = Signal(FP32.width, reset_less=True)
        m.d.sync += [x.eq(a), y.eq(b)]
        with m.Switch(element.operation):
            with m.Case(Operation.SUB):
                m.d.sync += y.eq(b ^ _MINUS_ZERO)
            with m.Case(Operation.MAX):
                m.d.sync += [x.eq(Mux(right.nan | less & ~left.nan, b, a)), y.eq(_MINUS_ZERO)]
            with m.Case(Operation.STEP):
                holds = ~left.nan & ~right.nan & (~less | both_zero)
                m.d.sync += [x.eq(Mux(holds, Const(_ONE, 32), 0)), y.eq(_MINUS_ZERO)]
        with m.If(element.horizontal & element.first):
            m.d.sync += [x.eq(a), y.eq(Mux(element.operation == Operation.MUL, Const(_ONE, 32), _MINUS_ZERO))]
        return x, y
