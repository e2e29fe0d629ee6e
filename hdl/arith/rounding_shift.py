"""Division by a power of two, rounded half away from zero."""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RoundingShift"]


class RoundingShift(wiring.Component):
    """Shifts an unsigned magnitude right and rounds: ``o`` = (``i`` + 2^(shift − 1)) >> shift, and ``i`` for a shift of 0.

    On magnitudes this is round half up; with the sign kept beside, it is round half away from zero (docs/formats.md). Exact for
    every value that ``shift`` can take, those between `max_shift` and the next power of two included. The sum cannot
    overflow: only the bit below the cut is added, after the shift.

    Combinational.

    Parameters
    ----------
    width : int
        Bits of the magnitude.
    max_shift : int

    Members
    -------
    i : In(width)
    shift : In(range(max_shift + 1))
    o : Out(width)
    """

    def __init__(self, width: int, max_shift: int) -> None:
        if width < 1 or max_shift < 1:
            raise ValueError(f"width and max_shift must be positive, not {width} and {max_shift}")
        self.width, self.max_shift = width, max_shift
        super().__init__({"i": In(width), "shift": In(range(max_shift + 1)), "o": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # One bit below the point: what was shifted out last.
        shifted = Signal(self.width + 1)
        m.d.comb += [shifted.eq(Cat(Const(0, 1), self.i) >> self.shift), self.o.eq(shifted[1:] + shifted[0])]
        return m
