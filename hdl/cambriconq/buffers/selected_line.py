"""The Selected Line: the vector that element writes are editing."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .requantizer import SHIFT_BITS, Requantizer
from .tag import Tag

__all__ = ["SelectedLine", "edit_layout"]


def edit_layout(cols: int) -> data.StructLayout:
    """One element write to a vector of `cols` values.

    ``value``, shifted by ``value_shift``, is put at ``index``; with ``requantize`` all others are shifted by ``vector_shift``. What is
    shifted is clipped to the format of ``tag``.
    """
    return data.StructLayout(
        {
            "index": range(cols),
            "value": signed(16),
            "value_shift": SHIFT_BITS,
            "vector_shift": SHIFT_BITS,
            "requantize": 1,
            "tag": Tag,
        }
    )


class SelectedLine(wiring.Component):
    """M values of 16 bits, loaded line by line and edited value by value; an edit that raises the exponent requantizes all at once.

    Lines are loaded from the lowest up. Each extends its values by its sign, so the last leaves them whole.

    Latency: ``lines`` show a line or an edit the cycle after it. Throughput: one line or one edit a cycle; an edit goes before a line.

    Parameters
    ----------
    cols : int
        Values M of a vector.

    Members
    -------
    load_enable : In(1)
    load_place : In(2)
        Which nibble of the values the line holds.
    load_data : In(4 * cols)
        Value 0 least significant.
    edit_enable : In(1)
    edit : In(edit_layout(cols))
    lines : Out(ArrayLayout(4 * cols, 4))
        Nibble after nibble of all values; held.
    """

    def __init__(self, cols: int) -> None:
        self.cols = cols
        super().__init__(
            {
                "load_enable": In(1),
                "load_place": In(2),
                "load_data": In(4 * cols),
                "edit_enable": In(1),
                "edit": In(edit_layout(cols)),
                "lines": Out(data.ArrayLayout(4 * cols, 4)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        edit = self.edit
        m.submodules.new_value = new_value = Requantizer()
        m.d.comb += [new_value.i.eq(edit.value), new_value.shift.eq(edit.value_shift), new_value.size.eq(edit.tag.size)]
        loads = Signal(4)
        extends = Signal(4)
        m.d.comb += [
            loads.eq(Mux(self.load_enable, 1 << self.load_place, 0)),
            extends.eq(Mux(self.load_enable, 0b1110 << self.load_place, 0)),
        ]
        values = [Signal(signed(16), name=f"value{col}", reset_less=True) for col in range(self.cols)]
        for col, value in enumerate(values):
            m.submodules[f"requantizer{col}"] = requantizer = Requantizer()
            m.d.comb += [requantizer.i.eq(value), requantizer.shift.eq(edit.vector_shift), requantizer.size.eq(edit.tag.size)]
            nibble = self.load_data.word_select(col, 4)
            with m.If(self.edit_enable):
                with m.If(edit.index == col):
                    m.d.sync += value.eq(new_value.o)
                with m.Elif(edit.requantize):
                    m.d.sync += value.eq(requantizer.o)
            with m.Else():
                for place in range(4):
                    part = value[4 * place :][:4]
                    with m.If(loads[place]):
                        m.d.sync += part.eq(nibble)
                    with m.Elif(extends[place]):
                        m.d.sync += part.eq(nibble[-1].replicate(4))
        for place in range(4):
            m.d.comb += self.lines[place].eq(Cat(value[4 * place :][:4] for value in values))
        return m
