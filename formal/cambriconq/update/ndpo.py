"""Every operation of the optimizer gets the operands of its own weight, in the right place."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.formal.arith.fp32 import delayed
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.fp32_add import Fp32Add
from nibblecore.hdl.arith.fp32_mul import Fp32Mul
from nibblecore.hdl.arith.fp32_rsqrt import Fp32Rsqrt
from nibblecore.hdl.cambriconq.update.ndpo import Ndpo

__all__ = ["PROOFS"]

_ONE = 127 << 23
_WORDS = ["c1", "c2", "c3", "c4", "c5", "epsilon"]
_STATE = ["i_w", "i_m", "i_v", "i_g"]


def plus(a: Value, b: Value) -> Value:
    """Stands for a + b. Moves both operands, each by a distance of its own, so that no exchange of two goes unseen."""
    return a.rotate_left(1) ^ b.rotate_left(5)


def times(a: Value, b: Value) -> Value:
    """Stands for a · b."""
    return a.rotate_left(3) ^ b.rotate_left(13) ^ 0x55


def root(x: Value) -> Value:
    """Stands for 1 / √x; as there, that of 1 is 1."""
    return (x ^ _ONE).rotate_left(7) ^ _ONE


class _Stage(wiring.Component):
    """Ports and latency of an arithmetic block; the value is there at once and waits."""

    LATENCY = 0

    def result(self) -> Value:
        raise NotImplementedError

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += [
            self.o.eq(delayed(m, self.result(), self.LATENCY, "value")),
            self.o_valid.eq(delayed(m, self.i_valid, self.LATENCY, "valid", reset_less=False)),
        ]
        return m


class Plus(_Stage):
    LATENCY = Fp32Add.LATENCY
    i_valid: In(1)
    a: In(32)
    b: In(32)
    o_valid: Out(1)
    o: Out(32)

    def result(self) -> Value:
        return plus(self.a, self.b)


class Times(_Stage):
    LATENCY = Fp32Mul.LATENCY
    i_valid: In(1)
    a: In(32)
    b: In(32)
    o_valid: Out(1)
    o: Out(32)

    def result(self) -> Value:
        return times(self.a, self.b)


class Root(_Stage):
    LATENCY = Fp32Rsqrt.LATENCY
    i_valid: In(1)
    i: In(32)
    o_valid: Out(1)
    o: Out(32)

    def result(self) -> Value:
        return root(self.i)


class Structure(Ndpo):
    _ADD, _MULTIPLY, _RSQRT = Plus, Times, Root


class FaultyStructure(Structure):
    """m' is believed to be there a cycle later than it is."""

    _M_AT = Structure._M_AT + 1


class NdpoSpec(wiring.Component):
    """Weights in any cycles under any reset; the constants are anything, and constant."""

    def __init__(self, block: type[Ndpo] = Structure) -> None:
        self.block = block
        super().__init__({"i_valid": In(1), **{name: In(32) for name in (*_WORDS, *_STATE)}, "use_m": In(1), "use_rsqrt": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.ndpo = block = self.block()
        constant = {}
        for name in (*_WORDS, "use_m", "use_rsqrt"):
            given = getattr(self, name)
            # The value of the first cycle, for ever.
            kept, begun = Signal.like(given, name=f"{name}_kept", reset_less=True), Signal(name=f"{name}_begun", reset_less=True)
            constant[name] = Signal.like(given, name=f"{name}_constant")
            m.d.sync += [kept.eq(constant[name]), begun.eq(1)]
            m.d.comb += [constant[name].eq(Mux(begun, kept, given)), getattr(block, name).eq(constant[name])]
        m.d.comb += [getattr(block, name).eq(getattr(self, name)) for name in ("i_valid", *_STATE)]

        c1, c2, c3, c4, c5, epsilon = (constant[name] for name in _WORDS)
        w, old_m, old_v, g = (delayed(m, getattr(self, name), Ndpo.LATENCY, name) for name in _STATE)
        valid = delayed(m, self.i_valid, Ndpo.LATENCY, "valid", reset_less=False)
        new_m = plus(times(c1, old_m), times(c2, g))
        new_v = plus(times(c3, old_v), times(c4, times(g, g)))
        t1, t2 = Mux(constant["use_m"], new_m, g), Mux(constant["use_rsqrt"], root(plus(new_v, epsilon)), _ONE)
        new_w = plus(w, times(times(c5, t1), t2) ^ (1 << 31))
        m.d.comb += Assert(block.o_valid == valid)
        with m.If(valid):
            m.d.comb += [
                Assert(Cat(block.o_w, block.o_m, block.o_v) == Cat(new_w, new_m, new_v)),
                Cover(constant["use_m"] & ~constant["use_rsqrt"] & (new_w == 1)),
                Cover(~constant["use_m"] & constant["use_rsqrt"]),
            ]
        return m


PROOFS = [
    Proof(
        name="cambriconq.update.ndpo.structure",
        spec=NdpoSpec,
        fault=lambda: NdpoSpec(FaultyStructure),
        engine="induction",
        depth=Ndpo.LATENCY + 2,
        cover_depth=Ndpo.LATENCY + 2,
        reason="a pipeline without feedback: a window of its length is every run. The arithmetic blocks, which have proofs of their own, "
        "are replaced by rotations and exclusive ors of the same latency",
    )
]
