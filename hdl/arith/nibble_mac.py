"""Four nibble multipliers: four 4-bit products summed, or one 8-bit product."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["NibbleMac"]


class NibbleMac(wiring.Component):
    """The four multipliers of a PE and the adders behind them.

    4-bit mode: ``product`` is the sum over the four lanes of a·w, −480..900.

    8-bit mode: ``product`` is A·W of one 8-bit pair, −32640..65025, from four nibble products (equation 5, whose second
    line prints A_H·B_H twice where the middle term is A_H·B_L):

        A·W = A_L·W_L + (A_H·W_L + A_L·W_H)·2^4 + A_H·W_H·2^8

    The caller lays the nibbles out so that no operand is routed inside: lanes 0..3 of ``a`` hold A_L, A_H, A_L, A_H, those of
    ``w`` hold W_L, W_L, W_H, W_H. Lanes laid out otherwise give that formula over the lanes.

    A signed operand is two's complement: of 8-bit codes the high nibble is signed, the low one never. ``a_signed`` and
    ``w_signed`` speak for all lanes of their operand.

    Latency: none, combinational. Throughput: a product a cycle.

    Members
    -------
    a, w : In(16)
        Four nibbles, lane 0 least significant.
    a_signed, w_signed : In(1)
        The operand is two's complement.
    eight_bit : In(1)
        8-bit mode; else 4-bit mode.
    product : Out(signed(17))
    """

    LANES = 4
    # In 8-bit mode: which lanes hold low nibbles, and what each product weighs.
    _A_LOW = (True, False, True, False)
    _W_LOW = (True, True, False, False)

    def __init__(self) -> None:
        super().__init__(
            {
                "a": In(4 * self.LANES),
                "w": In(4 * self.LANES),
                "a_signed": In(1),
                "w_signed": In(1),
                "eight_bit": In(1),
                "product": Out(signed(17)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        products = [Signal(signed(10), name=f"product{lane}") for lane in range(self.LANES)]
        for lane, product in enumerate(products):
            operands = []
            for name, word, is_signed, low in (
                ("a", self.a, self.a_signed, self._A_LOW[lane]),
                ("w", self.w, self.w_signed, self._W_LOW[lane]),
            ):
                nibble = word.word_select(lane, 4)
                operand = Signal(signed(5), name=f"{name}{lane}")
                negative = nibble[3] & is_signed & ~self.eight_bit if low else nibble[3] & is_signed
                m.d.comb += operand.eq(Cat(nibble, negative).as_signed())
                operands.append(operand)
            m.d.comb += product.eq(operands[0] * operands[1])
        middle = Signal(signed(11))
        high = products[3]
        m.d.comb += [
            middle.eq(products[1] + products[2]),
            self.product.eq(products[0] + Mux(self.eight_bit, middle << 4, middle) + Mux(self.eight_bit, high << 8, high)),
        ]
        return m
