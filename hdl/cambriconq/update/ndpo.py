"""The optimizer beside the memory: one lane of equation (1), in FP32."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.arith.fp32 import FP32
from nibblecore.hdl.arith.fp32_add import Fp32Add
from nibblecore.hdl.arith.fp32_mul import Fp32Mul
from nibblecore.hdl.arith.fp32_rsqrt import Fp32Rsqrt
from nibblecore.hdl.emit.emit import emit_once

__all__ = ["Ndpo"]

_ONE = 127 << 23


@emit_once
class Ndpo(wiring.Component):
    """The next weight, first and second moment, from the present ones and a gradient (paper, equation 1 and Figure 10b).

        m' = c1·m + c2·g             v' = c3·v + c4·(g·g)
        t1 = m' or g                 t2 = rsqrt(v' + ε) or 1
        w' = w − (c5·t1)·t2

    Every operation is rounded once, in this order and with these parentheses. SGD, AdaGrad, RMSProp and Adam are settings of the
    constants (Table IV). Subnormal numbers, infinities and zeros as in IEEE 754; every NaN result is 0x7FC00000; rsqrt(±0) = 0.

    Constants and selectors count in every stage: they may change only while no weight is inside.

    Latency: `LATENCY` = 21 cycles. Throughput: one weight a cycle; nothing ever waits. Without ``o_valid`` the results mean nothing.

    Members
    -------
    c1, c2, c3, c4, c5, epsilon : In(32)
        In FP32, as are all numbers here.
    use_m : In(1)
        t1 is m', not g.
    use_rsqrt : In(1)
        t2 is rsqrt(v' + ε), not 1.
    i_valid : In(1)
        There is a weight, with its moments and gradient.
    i_w, i_m, i_v, i_g : In(32)
    o_valid : Out(1)
        ``i_valid``, `LATENCY` cycles later.
    o_w, o_m, o_v : Out(32)
        w', m' and v'; for one cycle.
    """

    # The proof's stand-ins take their places.
    _ADD, _MULTIPLY, _RSQRT = Fp32Add, Fp32Mul, Fp32Rsqrt
    # The cycle in which m', v' and t2 are there: after two, three and five operations in series. The product and the sum follow.
    _M_AT = _MULTIPLY.LATENCY + _ADD.LATENCY
    _V_AT = 2 * _MULTIPLY.LATENCY + _ADD.LATENCY
    _T2_AT = _V_AT + _ADD.LATENCY + _RSQRT.LATENCY
    _STEP_AT = _T2_AT + _MULTIPLY.LATENCY
    LATENCY = _STEP_AT + _ADD.LATENCY

    def __init__(self) -> None:
        words = ["c1", "c2", "c3", "c4", "c5", "epsilon", "i_w", "i_m", "i_v", "i_g"]
        super().__init__(
            {
                **{name: In(FP32.width) for name in words},
                "use_m": In(1),
                "use_rsqrt": In(1),
                "i_valid": In(1),
                "o_valid": Out(1),
                **{name: Out(FP32.width) for name in ("o_w", "o_m", "o_v")},
            }
        )

    @property
    def module_name(self) -> str:
        return "ndpo"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.m_kept = m_kept = self._MULTIPLY()
        m.submodules.m_gained = m_gained = self._MULTIPLY()
        m.submodules.m_sum = m_sum = self._ADD()
        m.submodules.square = square = self._MULTIPLY()
        m.submodules.v_kept = v_kept = self._MULTIPLY()
        m.submodules.v_gained = v_gained = self._MULTIPLY()
        m.submodules.v_sum = v_sum = self._ADD()
        m.submodules.v_raised = v_raised = self._ADD()
        m.submodules.rsqrt = rsqrt = self._RSQRT()
        m.submodules.rate = rate = self._MULTIPLY()
        m.submodules.step = step = self._MULTIPLY()
        m.submodules.w_sum = w_sum = self._ADD()

        # Moments. v waits for the square of g.
        m.d.comb += [
            m_kept.i_valid.eq(self.i_valid),
            m_kept.a.eq(self.c1),
            m_kept.b.eq(self.i_m),
            m_gained.i_valid.eq(self.i_valid),
            m_gained.a.eq(self.c2),
            m_gained.b.eq(self.i_g),
            m_sum.i_valid.eq(m_kept.o_valid),
            m_sum.a.eq(m_kept.o),
            m_sum.b.eq(m_gained.o),
            square.i_valid.eq(self.i_valid),
            square.a.eq(self.i_g),
            square.b.eq(self.i_g),
            v_kept.i_valid.eq(square.o_valid),
            v_kept.a.eq(self.c3),
            v_kept.b.eq(_delay(m, self.i_v, square.LATENCY, "v_old")),
            v_gained.i_valid.eq(square.o_valid),
            v_gained.a.eq(self.c4),
            v_gained.b.eq(square.o),
            v_sum.i_valid.eq(v_kept.o_valid),
            v_sum.a.eq(v_kept.o),
            v_sum.b.eq(v_gained.o),
        ]

        # t2. The reciprocal root of 1 is 1: choosing ahead of it keeps the multiplexer off the multiplier's path.
        m.d.comb += [
            v_raised.i_valid.eq(v_sum.o_valid),
            v_raised.a.eq(v_sum.o),
            v_raised.b.eq(self.epsilon),
            rsqrt.i_valid.eq(v_raised.o_valid),
            rsqrt.i.eq(Mux(self.use_rsqrt, v_raised.o, _ONE)),
        ]

        # t1 has cycles to spare; a register behind its multiplexer replaces one behind the product.
        t1 = Signal(FP32.width, reset_less=True)
        m.d.sync += t1.eq(Mux(self.use_m, m_sum.o, _delay(m, self.i_g, self._M_AT, "g")))
        spare = self._T2_AT - self._M_AT - 1 - rate.LATENCY
        t1_valid = Signal()
        m.d.sync += t1_valid.eq(m_sum.o_valid)
        m.d.comb += [rate.i_valid.eq(t1_valid), rate.a.eq(self.c5), rate.b.eq(t1)]

        # The weight.
        m.d.comb += [
            step.i_valid.eq(rsqrt.o_valid),
            step.a.eq(_delay(m, rate.o, spare, "rate")),
            step.b.eq(rsqrt.o),
            w_sum.i_valid.eq(step.o_valid),
            w_sum.a.eq(_delay(m, self.i_w, self._STEP_AT, "w_old")),
            w_sum.b.eq(step.o ^ (1 << (FP32.width - 1))),
            self.o_w.eq(w_sum.o),
            self.o_m.eq(_delay(m, m_sum.o, self.LATENCY - self._M_AT, "m_new")),
            self.o_v.eq(_delay(m, v_sum.o, self.LATENCY - self._V_AT, "v_new")),
            self.o_valid.eq(w_sum.o_valid),
        ]
        return m


def _delay(m: Module, value: Value, cycles: int, name: str) -> Value:
    for cycle in range(1, cycles + 1):
        register = Signal(len(value), name=f"{name}_{cycle}", reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value
