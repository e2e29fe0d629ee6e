"""A quantizer lane equals the formula of docs/formats.md, proved on narrow words."""

from amaranth import Module, Mux, Signal, signed
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.output.quantizer import Quantizer
from nibblecore.hdl.ltoaq.output.quantizer_setup import QuantizerSetup

_BITS = 4
_PRODUCT_BITS = _BITS + 8


class QuantizerSpec(wiring.Component):
    """`QuantizerSetup` and `Quantizer` on words of 6 bits: any word, any legal parameters that do not change.

    The formula is written as it stands: absolute value, comparison, subtraction, addition of half a step before the shift, minimum,
    negation. With `fault`, the clip of normal codes is one too low.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        shapes = {
            "alpha": _BITS - 1,
            "multiplier": 8,
            "shift": 6,
            "k": 2,
            "q_max": 8,
            "eight_bit": 1,
            "is_signed": 1,
            "relu": 1,
            "i": signed(_BITS),
        }
        for name, shape in shapes.items():
            setattr(self, name, AnyConst(shape))
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.setup = setup = QuantizerSetup()
        m.submodules.quantizer = quantizer = Quantizer(gradient=True, input_bits=_BITS)
        parameters = ("multiplier", "shift", "k", "q_max", "eight_bit", "is_signed", "relu")
        m.d.comb += [getattr(setup, name).eq(getattr(self, name)) for name in parameters]
        # A narrow lane takes the lower bits of the complement, which are those of the narrow threshold.
        m.d.comb += [
            setup.alpha.eq(self.alpha),
            quantizer.settings.eq(setup.settings),
            quantizer.i.eq(self.i),
            quantizer.i_valid.eq(1),
        ]
        if self.fault:
            m.d.comb += quantizer.settings.normal_limit.eq(setup.settings.normal_limit - 1)

        # One word under one set of parameters, held: what comes out once the pipeline has filled belongs to it.
        filled = Signal(range(Quantizer.LATENCY + 1))
        m.d.sync += filled.eq(Mux(filled == Quantizer.LATENCY, filled, filled + 1))
        code_max = Signal(8)
        m.d.comb += code_max.eq(Mux(self.eight_bit, Mux(self.is_signed, 127, 255), Mux(self.is_signed, 7, 15)))
        m.d.comb += Assume((self.alpha != 0) & (self.shift <= 39) & (self.q_max <= code_max))

        y, a, d = Signal(signed(_BITS + 1)), Signal(_BITS), Signal(_BITS)
        outlier, e = Signal(), Signal(6)
        product, half = Signal(_PRODUCT_BITS), Signal(_PRODUCT_BITS + 1)
        r, q, limit = Signal(_PRODUCT_BITS), Signal(8), Signal(8)
        z, delta = Signal(_PRODUCT_BITS + 8), Signal(signed(10))
        negative = Signal()
        m.d.comb += [
            y.eq(Mux((self.relu | ~self.is_signed) & (self.i < 0), 0, self.i)),
            negative.eq(y < 0),
            a.eq(Mux(negative, -y, y)),
            outlier.eq(a >= self.alpha),
            d.eq(Mux(outlier, a - self.alpha, a)),
            e.eq(self.shift + Mux(outlier, self.k, 0)),
            product.eq(d * self.multiplier),
            # Beyond the product's width any shift rounds to 0 alike.
            half.eq(Mux((e == 0) | (e > _PRODUCT_BITS + 1), 0, 1 << (e - 1)[:4])),
            r.eq((product + half) >> e),
            limit.eq(Mux(outlier, self.q_max, code_max)),
            q.eq(Mux(r > limit, limit, r)),
            z.eq((product << 8) >> e),
            delta.eq(Mux(r > limit, 0, Mux(outlier, z - (q << 8), (q << 8) - z))),
        ]
        expected = Signal(8)
        sign_bit = Mux(negative, Mux(self.eight_bit, 0x80, 0x08), 0)
        m.d.comb += expected.eq(Mux(outlier, sign_bit | q, Mux(negative, -q, q)))
        code_bits = Mux(self.eight_bit, 0xFF, 0x0F)
        error = Signal(signed(10))
        m.d.comb += error.eq(Mux(quantizer.subtract, -quantizer.error, quantizer.error))
        with m.If(filled == Quantizer.LATENCY):
            m.d.comb += [
                Assert(quantizer.o_valid),
                Assert(quantizer.outlier == outlier),
                Assert(quantizer.saturated == (r > limit)),
                Assert((quantizer.code & code_bits) == (expected & code_bits)),
                Assert(quantizer.magnitude == a),
                Assert(error == Mux(negative, -delta, delta)),
                Cover(outlier & negative & (q == 3) & (delta != 0)),
                Cover(quantizer.saturated & ~outlier & self.eight_bit),
                Cover(~outlier & negative & (r == 5) & (z[:8] == 128)),
            ]
        return m


PROOFS = [
    Proof(
        name="ltoaq.output.quantizer.formula",
        spec=QuantizerSpec,
        fault=lambda: QuantizerSpec(fault=True),
        engine="bmc",
        depth=Quantizer.LATENCY + 1,
        cover_depth=Quantizer.LATENCY + 1,
        reason="a pipeline without feedback, so the cycles that fill it are everything; words of 6 bits instead of 32, because "
        "two different multipliers of full width are beyond the solvers",
    )
]
