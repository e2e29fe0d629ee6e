"""One lane of the outlier-aware quantizer: fixed-point words to OAQ codes."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .quantizer_setup import QuantizerSettings

__all__ = ["Quantizer"]

_MULTIPLIER_BITS = 8
_CODE_BITS = 8
_FRACTION_BITS = 8
_COARSE_SHIFTS = (32, 16, 8)
_FINE_SHIFTS = (4, 2, 1)


@emit_once
class Quantizer(wiring.Component):
    """Finds outliers, subtracts the threshold from them, scales, rounds half away from zero and clips (Section IV-B, equation 2).

    The numbers are those of docs/formats.md. All rounding is on magnitudes, so the result is symmetric; −2^31 has magnitude 2^31.

    With z = ⌊d·m·2^8 / 2^e⌋ the rounded quotient is r = ⌊z / 2^8⌋ + bit 7 of z, whatever the shift. So the product is narrowed to
    the sixteen bits of z (nine without ``gradient``) and a flag for any bit above them; and z − 2^8·r is the lower byte of z read
    as a signed number, which is all that the threshold's gradient needs.

    Settings are constant while values are in flight. Results are combinational from registers: three bits of shift, one comparison, one
    eight-bit addition.

    Latency: `LATENCY` = 2 cycles. Throughput: one value a cycle; nothing ever waits. Without ``o_valid`` results mean nothing.

    Parameters
    ----------
    gradient : bool
        With ``error`` and ``subtract``, for the lanes that also compute the threshold's gradient.
    input_bits : int
        Width of ``i``, 32; less only to make proofs small. The threshold is then the lower bits of the settings' one.

    Members
    -------
    settings : In(QuantizerSettings)
    i_valid : In(1)
        There is a word.
    i : In(signed(32))
    magnitude : Out(32)
        |y'| of the word at ``i`` in the same cycle, for the statistics.
    o_valid : Out(1)
        ``i_valid``, `LATENCY` cycles later.
    code : Out(8)
        In 4-bit mode the code is in bits 3:0 and the others mean nothing.
    outlier, saturated : Out(1)
        The code is an outlier's; the value was clipped.
    error : Out(signed(8)), if ``gradient``
        z − 2^8·q, 0 if saturated.
    subtract : Out(1), if ``gradient``
        The derivative sign(y')·delta is −``error``, otherwise +``error``.
    """

    LATENCY = 2

    def __init__(self, gradient: bool = False, input_bits: int = 32) -> None:
        if not 4 <= input_bits <= 32:
            raise ValueError(f"input_bits must be 4 to 32, not {input_bits}")
        self.gradient, self.input_bits = gradient, input_bits
        self._fraction_bits = _FRACTION_BITS if gradient else 1
        super().__init__(
            {
                "settings": In(QuantizerSettings),
                "i_valid": In(1),
                "i": In(signed(input_bits)),
                "magnitude": Out(input_bits),
                "o_valid": Out(1),
                "code": Out(_CODE_BITS),
                "outlier": Out(1),
                "saturated": Out(1),
                **({"error": Out(signed(_FRACTION_BITS)), "subtract": Out(1)} if gradient else {}),
            }
        )

    @property
    def module_name(self) -> str:
        return f"quantizer_{self.input_bits}" + ("_gradient" if self.gradient else "")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        settings = self.settings
        bits = self.input_bits - 1

        # Stage 0: |y'| = folded + negative, with the threshold taken off at the same time.
        sign = self.i[-1]
        negative = Signal()
        folded = Signal(bits)
        difference = Signal(bits + 1)
        m.d.comb += [
            negative.eq(sign & ~settings.clear_negative),
            folded.eq(Mux(sign, ~self.i[:bits] & negative.replicate(bits), self.i[:bits])),
            self.magnitude.eq(folded + negative),
            difference.eq(folded + settings.alpha_complement[:bits] + negative),
        ]
        stage1_residual = Signal(bits)
        stage1_outlier = Signal()
        stage1_negative = Signal()
        stage1_valid = Signal()
        m.d.sync += [
            stage1_residual.eq(Mux(difference[-1], difference, self.magnitude)),
            stage1_outlier.eq(difference[-1]),
            stage1_negative.eq(negative),
            stage1_valid.eq(self.i_valid),
        ]

        # Stage 1: scale. The coarse half of the shift is here because what it leaves is narrower than the product.
        product = self._multiply(m, stage1_residual, settings.multiplier)
        shift = Signal(6)
        m.d.comb += shift.eq(Mux(stage1_outlier, settings.outlier_shift, settings.normal_shift))
        coarse, coarse_over = self._narrow(m, Cat(Signal(self._fraction_bits, name="no_fraction"), product), shift, _COARSE_SHIFTS)
        stage2_product = Signal(len(coarse))
        stage2_over = Signal()
        stage2_shift = Signal(3)
        stage2_outlier = Signal()
        stage2_negative = Signal()
        m.d.sync += [
            stage2_product.eq(coarse),
            stage2_over.eq(coarse_over),
            stage2_shift.eq(shift),
            stage2_outlier.eq(stage1_outlier),
            stage2_negative.eq(stage1_negative),
            self.o_valid.eq(stage1_valid),
        ]

        # Stage 2: round and clip. −(q + up) = ~q + ~up, so one adder both rounds and negates.
        z, over = self._narrow(m, stage2_product, stage2_shift, _FINE_SHIFTS)
        quotient, up = z[self._fraction_bits :], z[self._fraction_bits - 1]
        limit = Signal(_CODE_BITS)
        comparison = Signal(_CODE_BITS + 1)
        clipped = Signal(_CODE_BITS)
        clipped_up = Signal()
        complement = Signal()
        outlier_sign = stage2_outlier & stage2_negative
        m.d.comb += [
            limit.eq(Mux(stage2_outlier, settings.outlier_limit, settings.normal_limit)),
            # Carries if quotient + up exceeds the limit.
            comparison.eq(quotient + Cat(~limit) + up),
            self.saturated.eq(over | stage2_over | comparison[-1]),
            clipped.eq(Mux(self.saturated, limit, quotient)),
            clipped_up.eq(up & ~self.saturated),
            complement.eq(stage2_negative & ~stage2_outlier),
            self.code.eq(
                ((clipped ^ complement.replicate(_CODE_BITS)) + (clipped_up ^ complement))
                | Mux(settings.eight_bit, outlier_sign << 7, outlier_sign << 3)
            ),
            self.outlier.eq(stage2_outlier),
        ]
        if self.gradient:
            m.d.comb += [
                self.error.eq(z[:_FRACTION_BITS] & (~self.saturated).replicate(_FRACTION_BITS)),
                self.subtract.eq(~(stage2_outlier ^ stage2_negative)),
            ]
        return m

    @staticmethod
    def _multiply(m: Module, a: Value, b: Value) -> Signal:
        """a·b by base-4 digits of b and the multiples 0..3 of a: smaller than Booth recoding for so short a b."""
        triple = Signal(len(a) + 2)
        m.d.comb += triple.eq(a + (a << 1))
        rows = []
        for i in range(_MULTIPLIER_BITS // 2):
            row, digit = Signal(len(triple), name=f"row{i}"), b.word_select(i, 2)
            m.d.comb += row.eq(Mux(digit == 1, a, 0) | Mux(digit == 2, a << 1, 0) | Mux(digit == 3, triple, 0))
            rows.append(row)
        low = Signal(len(triple) + 3)
        high = Signal(len(triple) + 3)
        product = Signal(len(a) + _MULTIPLIER_BITS)
        m.d.comb += [low.eq(rows[0] + (rows[1] << 2)), high.eq(rows[2] + (rows[3] << 2)), product.eq(low + (high << 4))]
        return product

    def _narrow(self, m: Module, value: Value, shift: Value, steps: tuple[int, ...]) -> tuple[Value, Signal]:
        """`value` shifted right by the sum of those `steps` that `shift` selects, and whether a bit was lost at the top.

        After each step only the bits that the remaining shifts can still bring into z are kept.
        """
        lost = []
        for step in steps:
            chosen, width = Signal(name=f"shift_by{step}"), _CODE_BITS + self._fraction_bits + step - 1
            shifted = Signal(len(value), name=f"shifted{step}")
            m.d.comb += [chosen.eq(shift[step.bit_length() - 1]), shifted.eq(Mux(chosen, value[step:], value))]
            lost.append(shifted[width:].any())
            value = shifted[:width]
        over = Signal(name=f"lost{steps[0]}")
        m.d.comb += over.eq(Cat(lost).any())
        return value, over
