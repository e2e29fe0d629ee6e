"""The threshold's gradient is the running sum of its products, proved on narrow words."""

from amaranth import Module, Mux, Signal, signed
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.output.threshold_gradient import ThresholdGradient

_LANES = 2
_G_BITS = 3
_SUM_BITS = 14


class ThresholdGradientSpec(wiring.Component):
    """`ThresholdGradient` with two lanes of 4-bit gradients against an accumulator that adds at once, delayed by the latency.

    Inputs, `clear` and reset are free. With `fault`, the block sees lane 1 unmasked.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__(
            {
                "clear": In(1),
                "i_valid": In(1),
                "mask": In(_LANES),
                "error": In(8 * _LANES),
                "subtract": In(_LANES),
                "g": In(_G_BITS * _LANES),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.gradient = gradient = ThresholdGradient(_LANES, _G_BITS, _SUM_BITS)
        m.d.comb += [
            getattr(gradient, name).eq(getattr(self, name)) for name in ("clear", "i_valid", "mask", "error", "subtract", "g")
        ]
        if self.fault:
            m.d.comb += gradient.mask[1].eq(1)
        contribution = Signal(signed(_SUM_BITS))
        terms = []
        for i in range(_LANES):
            error, g = self.error.word_select(i, 8).as_signed(), self.g.word_select(i, _G_BITS).as_signed()
            signed_error = Signal(signed(9), name=f"signed_error{i}")
            product = Signal(signed(13), name=f"product{i}")
            m.d.comb += signed_error.eq(Mux(self.i_valid & self.mask[i], Mux(self.subtract[i], -error, error), 0))
            # A product of what the block multiplies, in its order, so that the solver need not prove what holds of multiplication.
            m.d.comb += product.eq(g * signed_error)
            terms.append(product)
        m.d.comb += contribution.eq(sum(terms))
        # A clear takes effect on the sum at once, and empties the delay.
        waiting: object = contribution
        for stage in range(gradient.LATENCY - 1):
            delayed = Signal(signed(_SUM_BITS), name=f"delayed{stage}")
            m.d.sync += delayed.eq(Mux(self.clear, 0, waiting) if stage else waiting)
            waiting = delayed
        expected = Signal(signed(_SUM_BITS))
        m.d.sync += expected.eq(Mux(self.clear, 0, expected + waiting))
        m.d.comb += [Assert(gradient.sum == expected), Cover((expected < -1000) & ~self.clear), Cover(expected == 508)]
        return m


PROOFS = [
    Proof(
        name="ltoaq.output.threshold_gradient.sum",
        spec=ThresholdGradientSpec,
        fault=lambda: ThresholdGradientSpec(fault=True),
        engine="bmc",
        depth=ThresholdGradient.LATENCY + 3,
        cover_depth=12,
        reason="the adder is the only feedback; from reset, 7 cycles with clears and resets anywhere among them; "
        "the product itself is the bench's affair",
    )
]
