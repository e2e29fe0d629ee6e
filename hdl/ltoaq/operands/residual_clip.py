"""Clips the residuals of outliers on their way into the operand buffer, once for whatever array reads it."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.ltoaq.command.job import OperandFormat

from .transposer import beat_layout

__all__ = ["ResidualClip"]

_VALUE_MAX = {4: 31, 8: 1023}


class ResidualClip(wiring.Component):
    """Outliers of a beat whose residual q is beyond q_max = ⌊(value_max − T) / 2^k⌋ get q_max instead (docs/formats.md).

    So T + q·2^k never exceeds 31 (4-bit codes) or 1023 (8-bit codes) behind it. No quantizer writes such residuals, but memory can
    hold them. It stands in front of the buffer because a beat passes there once; at the array's edge each code passes as often as it
    is used, and every row and column would need one.

    Latency: combinational. Throughput: a beat a cycle.

    Parameters
    ----------
    block : int
        Edge B of a block: 4·B² bits of codes.

    Members
    -------
    eight_bit : In(1)
    format : In(OperandFormat)
        Of the tensor, 1 ≤ T ≤ Qmax; otherwise codes of outliers come out as anything.
    i : In(beat_layout(block))
        Of 8-bit codes the upper half of the flags means nothing.
    o : Out(beat_layout(block))
        Flags and the codes of normal elements unchanged.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        super().__init__(
            {"eight_bit": In(1), "format": In(OperandFormat), "i": In(beat_layout(block)), "o": Out(beat_layout(block))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        eight, is_signed = self.eight_bit, self.format.signed
        room = Signal(10)
        limit = Signal(8)
        m.d.comb += [
            room.eq((Mux(eight, _VALUE_MAX[8], _VALUE_MAX[4]) - self.format.threshold) >> self.format.k),
            limit.eq(Mux(eight, Mux(room > 255, 255, room), Mux(room > 15, 15, room)[:4].replicate(2))),
            self.o.flags.eq(self.i.flags),
        ]
        limit_low, limit_high = limit[:4], limit[4:]
        for byte in range(self.block**2 // 2):
            low, high = (self.i.codes.word_select(2 * byte + half, 4) for half in range(2))
            flag = self.i.flags[byte]
            flag_low, flag_high = (Mux(eight, flag, self.i.flags[2 * byte + half]) for half in range(2))
            q_low, q_high = Cat(low[:3], low[3] & (eight | ~is_signed)), Cat(high[:3], high[3] & ~is_signed)
            over_low, over_high = Signal(name=f"over_low{byte}"), Signal(name=f"over_high{byte}")
            m.d.comb += [
                over_low.eq(q_low > limit_low),
                over_high.eq((q_high > limit_high) | (eight & (q_high == limit_high) & over_low)),
                self.o.codes.word_select(2 * byte, 4).eq(
                    Mux(flag_low & Mux(eight, over_high, over_low), self._clipped(limit_low, low, is_signed & ~eight), low)
                ),
                self.o.codes.word_select(2 * byte + 1, 4).eq(
                    Mux(flag_high & over_high, self._clipped(limit_high, high, is_signed), high)
                ),
            ]
        return m

    @staticmethod
    def _clipped(limit: Value, code: Value, has_sign: Value) -> Value:
        return Cat(limit[:3], Mux(has_sign, code[3], limit[3]))
