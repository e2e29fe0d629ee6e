"""What all quantizer lanes share: the constants they need, derived once from the command's parameters."""

from amaranth import Module, Mux
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["QuantizerSettings", "QuantizerSetup"]


class QuantizerSettings(data.Struct):
    """Constants of a `Quantizer`, the same for all lanes."""

    alpha_complement: 31  # 2^31 − alpha: adding it subtracts alpha, and the carry tells an outlier
    multiplier: 8
    normal_shift: 6
    outlier_shift: 6
    normal_limit: 8
    outlier_limit: 8
    eight_bit: 1
    signed: 1
    clear_negative: 1


class QuantizerSetup(wiring.Component):
    """Derives `QuantizerSettings` from the parameters of docs/formats.md.

    Legal: 1 ≤ ``alpha``, ``shift`` ≤ 39. Parameters outside give settings without meaning, never a hang.

    Latency: none, combinational. Throughput: a set of parameters a cycle.

    Members
    -------
    alpha : In(31)
    multiplier : In(8)
    shift : In(6)
    k : In(2)
    q_max : In(8)
        Largest residual of an outlier.
    eight_bit, is_signed, relu : In(1)
    settings : Out(QuantizerSettings)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "alpha": In(31),
                "multiplier": In(8),
                "shift": In(6),
                "k": In(2),
                "q_max": In(8),
                "eight_bit": In(1),
                "is_signed": In(1),
                "relu": In(1),
                "settings": Out(QuantizerSettings),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s = self.settings
        m.d.comb += [
            s.alpha_complement.eq(-self.alpha),
            s.multiplier.eq(self.multiplier),
            s.normal_shift.eq(self.shift),
            s.outlier_shift.eq(self.shift + self.k),
            s.normal_limit.eq(Mux(self.eight_bit, 255, 15) >> self.is_signed),
            s.outlier_limit.eq(self.q_max),
            s.eight_bit.eq(self.eight_bit),
            s.signed.eq(self.is_signed),
            s.clear_negative.eq(self.relu | ~self.is_signed),
        ]
        return m
