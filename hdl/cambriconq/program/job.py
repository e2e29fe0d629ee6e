"""What the controller hands to the units that move words: how many, and where."""

from amaranth import Const, Value
from amaranth.lib import data, enum

from .isa import INSTRUCTIONS, Opcode

__all__ = ["InstructionFields", "Place", "PlaceRange", "Shape", "Space", "elements_layout", "place_fields", "ranges_meet"]


class InstructionFields:
    """The fields of an instruction, as slices of its bits."""

    def __init__(self, raw: Value, opcode: Opcode) -> None:
        self._slices = {f.name: raw[32 * f.word + f.low :][: f.width] for f in INSTRUCTIONS[opcode].fields}

    def __getitem__(self, name: str) -> Value:
        return self._slices[name]

    def __contains__(self, name: str) -> bool:
        return name in self._slices

    def get(self, name: str) -> Value:
        """The field, or 0 if the instruction has none of that name."""
        return self._slices.get(name, Const(0, 32))


class Shape(data.Struct):
    """rows × cols elements, taken row by row."""

    rows: 16
    cols: 16

    @property
    def empty(self) -> Value:
        return (self.rows == 0) | (self.cols == 0)


class Place(data.Struct):
    """Element (i, j) lies at ``at + i·row + j·col``, modulo 2³²: words in NBout, bytes in memory."""

    at: 32
    row: 32
    col: 32

    def wide(self, shape: Shape, words: int, unit: int) -> Value:
        """Whether rows are of neighbours and each begins a group of `words`; a word is `unit` of the place's numbers."""
        below = (words * unit - 1).bit_length()
        aligned = (self.at[:below] == 0) & ((self.row[:below] == 0) | (shape.rows == 1))
        return (self.col == unit) & aligned


class Space(enum.Enum, shape=2):  # type: ignore[call-arg]
    """Where a place is: memory counts bytes, NBout FP32 words, NBin and SB lines."""

    MEMORY = 0
    NBOUT = 1
    NBIN = 2
    SB = 3


class PlaceRange(data.Struct):
    """All that lies between the first and the last element of a place; ``high`` is one beyond."""

    space: Space
    write: 1
    low: 32
    high: 33


def ranges_meet(a: PlaceRange, b: PlaceRange) -> Value:
    """Whether they have something in common."""
    return (a.space.as_value() == b.space.as_value()) & (a.low < b.high) & (b.low < a.high)


def elements_layout(words: int, rows: int = 1) -> data.StructLayout:
    """Up to `words` FP32 words of a row on their way, the first least significant; which of them are there; what the last of them ends.

    Where up to `rows` rows come together, also which of them it is, and whether it begins.
    """
    together = {"row": range(rows), "first_of_row": 1} if rows > 1 else {}
    return data.StructLayout({"words": 32 * words, "mask": words, "last_of_row": 1, "last": 1, **together})


def place_fields(place: Place, fields: InstructionFields, name: str) -> list[Value]:
    """Sets an instruction's place; 0 between columns if it names no distance."""
    return [place.at.eq(fields[name]), place.row.eq(fields[f"{name}_row"]), place.col.eq(fields.get(f"{name}_col"))]
