"""Turns bus beats of a tile into rows of buffer words, transposing each block when asked."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Transposer", "beat_layout", "word_bits"]


def word_bits(block: int) -> int:
    """Bits of a buffer word: B nibbles of codes and B outlier flags."""
    return 5 * block


def beat_layout(block: int) -> data.StructLayout:
    """A code beat and its outlier flags: one a lane, in the low half when the codes have 8 bits."""
    return data.StructLayout({"codes": 4 * block * block, "flags": block * block})


class Transposer(wiring.Component):
    """Reorders the elements of each B × B block into B buffer words that run along K.

    A buffer word is {codes: 4·B bits, flags: B bits} and holds B consecutive elements along K of one row of the operand (B/2
    elements with 8-bit codes; their flags in the low half). Output beat h of a block carries word h of each of the B rows: one beat
    for 4-bit codes, two for 8-bit codes. Without transposition the operand's rows are the block's rows, with it the block's columns.

    Latency: none, combinational; the first output beat of a transposed 8-bit block comes when its second input beat is offered.
    Throughput: a beat a cycle; transposed 8-bit blocks take three cycles for two beats, because each of their output beats needs both
    input beats.

    Parameters
    ----------
    block : int
        Edge B of a block.

    Members
    -------
    eight_bit, transposed : In(1)
        Constant while beats flow.
    i : In(stream of beat_layout(block))
    o : Out(stream of block * 5 * block bits)
        B buffer words, row 0 least significant.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        super().__init__(
            {
                "eight_bit": In(1),
                "transposed": In(1),
                "i": In(stream.Signature(beat_layout(block))),
                "o": Out(stream.Signature(block * word_bits(block))),
            }
        )

    def _rows(self, element: object, elements: int) -> list[object]:
        """B buffer words from ``element(row, position) -> (code, flag)``."""
        words = []
        for row in range(self.block):
            pairs = [element(row, position) for position in range(elements)]  # type: ignore[operator]
            flags = Cat(flag for _, flag in pairs)
            words.append(Cat(*(code for code, _ in pairs), flags, Const(0, self.block - elements)))
        return words

    def elaborate(self, platform: object) -> Module:
        m = Module()
        b, half = self.block, self.block // 2
        first = Signal(beat_layout(b))
        position = Signal(range(3))

        def lane(beat: object, index: int, bits: int) -> tuple[object, object]:
            return beat.codes[index * bits : (index + 1) * bits], beat.flags[index]  # type: ignore[attr-defined]

        now = self.i.payload

        def transposed_byte(out_beat: int) -> object:
            def element(row: int, k: int) -> tuple[object, object]:
                beat, column = (first, row) if row < half else (now, row - half)
                return lane(beat, (out_beat * half + k) * half + column, 8)

            return element

        nibbles = Cat(self._rows(lambda r, k: lane(now, r * b + k, 4), b))
        nibbles_transposed = Cat(self._rows(lambda r, k: lane(now, k * b + r, 4), b))
        bytes_ = Cat(self._rows(lambda r, k: lane(now, r * half + k, 8), half))
        bytes_transposed = [Cat(self._rows(transposed_byte(h), half)) for h in range(2)]

        with m.If(self.eight_bit & self.transposed):
            m.d.comb += self.o.payload.eq(Mux(position == 2, bytes_transposed[1], bytes_transposed[0]))
            with m.If(position == 0):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [first.eq(now), position.eq(1)]
            with m.Else():
                m.d.comb += [self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready & (position == 2))]
                with m.If(self.i.valid & self.o.ready):
                    m.d.sync += position.eq(Mux(position == 1, 2, 0))
        with m.Else():
            m.d.comb += [
                self.o.payload.eq(Mux(self.eight_bit, bytes_, Mux(self.transposed, nibbles_transposed, nibbles))),
                self.o.valid.eq(self.i.valid),
                self.i.ready.eq(self.o.ready),
            ]
        return m
