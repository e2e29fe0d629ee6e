"""The threshold's gradient: a sum of quantization errors times incoming gradients."""

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ThresholdGradient"]

_ERROR_BITS = 8


class ThresholdGradient(wiring.Component):
    """``sum`` += Σ ±error·g over the lanes that ``mask`` selects (equation 3).

    ``error`` and ``subtract`` are those of a `Quantizer` with ``gradient``, ``g`` the gradient of the loss by the quantized
    element. The integer ``sum`` is in units of 1/(256·Qmax) of g's unit, and wraps at 64 bits. ``clear`` zeroes it and drops what
    is on its way to it; what enters in the same cycle as ``clear`` counts.

    Latency: ``sum`` holds what entered `LATENCY` = 4 cycles ago. Throughput: one element a lane a cycle.

    Parameters
    ----------
    lanes : int
        At least 1.
    gradient_bits, sum_bits : int
        Widths of ``g`` and ``sum``, 32 and 64; less only to make proofs small.

    Members
    -------
    clear : In(1)
    i_valid : In(1)
        There are elements.
    mask : In(lanes)
        Elements that lie inside the tensor.
    error : In(lanes * 8)
        Signed, lane 0 least significant.
    subtract : In(lanes)
        The term is −error·g.
    g : In(lanes * 32)
        Signed.
    sum : Out(signed(64))
    """

    LATENCY = 4

    def __init__(self, lanes: int, gradient_bits: int = 32, sum_bits: int = 64) -> None:
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes}")
        self.lanes, self.gradient_bits, self.sum_bits = lanes, gradient_bits, sum_bits
        super().__init__(
            {
                "clear": In(1),
                "i_valid": In(1),
                "mask": In(lanes),
                "error": In(_ERROR_BITS * lanes),
                "subtract": In(lanes),
                "g": In(gradient_bits * lanes),
                "sum": Out(signed(sum_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        terms: list[Value] = []
        for i in range(self.lanes):
            error = self.error.word_select(i, _ERROR_BITS).as_signed()
            stage1_error, stage1_g = Signal(signed(_ERROR_BITS), name=f"error{i}"), Signal(signed(self.gradient_bits), name=f"g{i}")
            stage1_subtract = Signal(name=f"stage1_subtract{i}")
            # The error changes its sign before the product, where that takes a fifth of the bits.
            signed_error = Signal(signed(_ERROR_BITS + 1), name=f"signed_error{i}")
            product = Signal(signed(len(signed_error) + self.gradient_bits), name=f"product{i}")
            m.d.comb += signed_error.eq(Mux(stage1_subtract, -stage1_error, stage1_error))
            m.d.sync += [
                # Whatever contributes nothing is a zero error from here on, so that no valid bit need follow it.
                stage1_error.eq(Mux(self.i_valid & self.mask[i], error, 0)),
                stage1_subtract.eq(self.subtract[i]),
                stage1_g.eq(self.g.word_select(i, self.gradient_bits)),
                product.eq(Mux(self.clear, 0, stage1_g * signed_error)),
            ]
            terms.append(product)
        stage3_total = Signal(signed(len(terms[0]) + (self.lanes - 1).bit_length()))
        m.d.sync += [
            stage3_total.eq(Mux(self.clear, 0, sum(terms[1:], start=terms[0]))),
            self.sum.eq(Mux(self.clear, 0, self.sum + stage3_total)),
        ]
        return m
