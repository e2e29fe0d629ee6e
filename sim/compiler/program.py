"""Programs of Cambricon-Q under construction: places with several dimensions, and instructions over them."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import product
from math import prod

from nibblecore.hdl.cambriconq.program.isa import Instruction, Opcode, Unary, encode

__all__ = ["ROWS_AND_COLUMNS", "CompileError", "Phase", "Program", "Ring", "Space", "View", "float_bits", "matrix_fields", "parts"]

ROWS_AND_COLUMNS = (1 << 16) - 1
"""Of an instruction, at most."""


class CompileError(ValueError):
    """The network does not fit the machine."""


class Phase(IntEnum):
    """What a cycle of training is spent on: the number of its counter. The statistic, S, is taken on the fly within Q."""

    OTHER = 0
    FW = 1
    NG = 2
    WG = 3
    WU = 4
    Q = 5


_OWN_PHASE = {
    Opcode.QLOAD: Phase.Q,
    Opcode.QMOVE: Phase.Q,
    Opcode.QSTORE: Phase.Q,
    Opcode.VSTORE: Phase.Q,
    Opcode.WGSTORE: Phase.WU,
}


def float_bits(value: float) -> int:
    """The bit pattern of the nearest FP32 number."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def parts(count: int, most: int) -> Iterator[tuple[int, int]]:
    """First index and length of pieces of at most `most`."""
    for first in range(0, count, most):
        yield first, min(most, count - first)


class Space:
    """Hands out a space from its start."""

    def __init__(self, size: int, what: str, first: int = 0) -> None:
        self.size, self.what, self.next = size, what, first

    def take(self, amount: int, align: int = 1) -> int:
        """Raises CompileError if there is no room."""
        at = -(-self.next // align) * align
        if at + amount > self.size:
            raise CompileError(f"{self.what} is too small: {at + amount} needed, {self.size} there")
        self.next = at + amount
        return at


class Ring:
    """Hands out a space again and again: behind what was handed out last, or from the start where that does not fit."""

    def __init__(self, size: int) -> None:
        self.size, self.next = size, 0

    def take(self, amount: int) -> int:
        """An amount of no more than the size."""
        at = self.next if self.next + amount <= self.size else 0
        self.next = at + amount
        return at


@dataclass(frozen=True)
class View:
    """FP32 numbers in NBout (in words) or in memory (in bytes): element (i, j, …) lies at ``at + i·strides[0] + j·strides[1] + …``."""

    at: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    memory: bool = False

    @classmethod
    def matrix(cls, at: int, rows: int, cols: int, pitch: int, memory: bool = False) -> "View":
        """Rows of neighbours, `pitch` elements from one row to the next."""
        unit = 4 if memory else 1
        return cls(at, (rows, cols), (pitch * unit, unit), memory)

    @property
    def turned(self) -> "View":
        """The transpose of a matrix."""
        return View(self.at, self.sizes[::-1], self.strides[::-1], self.memory)

    def part(self, dimension: int, first: int, count: int) -> "View":
        """Some of the indices of a dimension."""
        sizes = (*self.sizes[:dimension], count, *self.sizes[dimension + 1 :])
        return View(self.at + first * self.strides[dimension], sizes, self.strides, self.memory)

    def split(self, dimension: int, *sizes: int) -> "View":
        """A dimension divided into several, the last innermost."""
        if prod(sizes) != self.sizes[dimension]:
            raise ValueError(f"{self.sizes[dimension]} elements cannot be divided into {sizes}")
        strides = [self.strides[dimension] * prod(sizes[number + 1 :]) for number in range(len(sizes))]
        before, after = slice(None, dimension), slice(dimension + 1, None)
        return View(
            self.at,
            (*self.sizes[before], *sizes, *self.sizes[after]),
            (*self.strides[before], *strides, *self.strides[after]),
            self.memory,
        )

    def spread(self, sizes: tuple[int, ...]) -> "View":
        """Its only element, as often as wanted."""
        return View(self.at, sizes, (0,) * len(sizes), self.memory)


@dataclass
class Program:
    """Instructions in order.

    Of `combine`, `scale`, `function` and `reduce` every place lies in NBout, of `copy` at least one: ValueError otherwise. A destination may
    be an operand itself, element by element, of `reduce` the rows' first elements; it must not overlap one otherwise.

    Members
    -------
    instructions : list of Instruction
    stage : Phase
        As what the cycles of all instructions count that have no phase of their own.
    """

    instructions: list[Instruction] = field(default_factory=list)
    stage: Phase = Phase.OTHER

    def emit(self, opcode: Opcode, **fields: int) -> None:
        """Append an instruction; fields not given are 0.

        Sets `phase`, given or not: Q of QLOAD, QMOVE, QSTORE and VSTORE, WU of WGSTORE, `stage` of all others but HALT and CROSET, which have
        none. Raises ValueError if the instruction has no such field or a value does not fit.
        """
        if opcode not in (Opcode.HALT, Opcode.CROSET):
            fields["phase"] = _OWN_PHASE.get(opcode, self.stage)
        self.instructions.append(Instruction.of(opcode, **fields))

    def binary(self) -> bytes:
        """As memory holds it, 64 bytes an instruction. No HALT is added."""
        return b"".join(map(encode, self.instructions))

    # Vectors: as many instructions as the places need ---------------------------------------------------------------------

    def combine(self, opcode: Opcode, dest: View, a: View, b: View) -> None:
        """VADD, VSUB, VMUL, VMAX, VSTEP: dest = a ∘ b, element by element. Raises ValueError unless all three have the same sizes."""
        _in_nbout(dest, a, b)
        for shape, places in _nests(dest, a, b):
            self.emit(opcode, **shape, **_at("dest", places[0]), **_at("a", places[1]), **_at("b", places[2]))

    def scale(self, dest: View, a: View, factor: float) -> None:
        """VFMUL: dest = a · `factor`, the nearest FP32 number. Raises ValueError unless both have the same sizes."""
        _in_nbout(dest, a)
        for shape, places in _nests(dest, a):
            self.emit(Opcode.VFMUL, **shape, **_at("dest", places[0]), **_at("a", places[1]), value=float_bits(factor))

    def function(self, which: Unary, dest: View, a: View) -> None:
        """VFUN: dest = which(a), element by element. Raises ValueError unless both have the same sizes."""
        _in_nbout(dest, a)
        for shape, places in _nests(dest, a):
            self.emit(Opcode.VFUN, function=which, **shape, **_at("dest", places[0]), **_at("a", places[1]))

    def reduce(self, opcode: Opcode, dest: View, rows: View) -> None:
        """HADD, HMUL, HMAX of every row of a matrix into an element of a vector.

        Of `dest` only `at` and the first stride count. Raises ValueError if a row has more than `ROWS_AND_COLUMNS` elements.
        """
        _in_nbout(dest, rows)
        for first, count in parts(rows.sizes[0], ROWS_AND_COLUMNS):
            self.emit(
                opcode,
                rows=count,
                cols=rows.sizes[1],
                dest=dest.at + first * dest.strides[0],
                dest_row=dest.strides[0],
                **_at("src", _place(rows.part(0, first, count))),
            )

    def copy(self, dest: View, src: View) -> None:
        """Between memory and NBout, or within NBout; not within memory. Raises ValueError unless both have the same sizes."""
        if not dest.memory and not src.memory:
            self.function(Unary.COPY, dest, src)
            return
        if dest.memory and src.memory:
            raise ValueError("nothing copies within memory")
        for shape, (to, source) in _nests(dest, src):
            to_fields, source_fields = _at("dest", to), _at("src", source)
            # Words in memory are neighbours.
            del (to_fields if dest.memory else source_fields)["dest_col" if dest.memory else "src_col"]
            self.emit(Opcode.SSTORE if dest.memory else Opcode.SLOAD, **shape, **to_fields, **source_fields)


def _in_nbout(*views: View) -> None:
    if any(view.memory for view in views):
        raise ValueError("vector instructions work on NBout alone, not on memory")


_Place = tuple[int, int, int]


def _at(name: str, place: _Place) -> dict[str, int]:
    return {name: place[0], f"{name}_row": place[1], f"{name}_col": place[2]}


def _place(matrix: View) -> _Place:
    return matrix.at, matrix.strides[0], matrix.strides[1]


def _nests(*views: View) -> Iterator[tuple[dict[str, int], list[_Place]]]:
    """Shapes and places of the instructions that go through all elements of views of one size.

    Dimensions that are one in every view are joined, and the two largest become rows and columns. Columns in memory are neighbours.
    """
    if len({view.sizes for view in views}) != 1:
        raise ValueError(f"places of different sizes: {', '.join(str(view.sizes) for view in views)}")
    dimensions: list[tuple[int, tuple[int, ...]]] = []
    for number, size in enumerate(views[0].sizes):
        strides = tuple(view.strides[number] for view in views)
        if size == 1:
            continue
        outer = dimensions[-1] if dimensions else None
        if outer is not None and outer[0] and all(o == size * i for o, i in zip(outer[1], strides, strict=True)):
            dimensions[-1] = (outer[0] * size, strides)
        else:
            dimensions.append((size, strides))
    in_memory = [number for number, view in enumerate(views) if view.memory]
    neighbours = [d for d in dimensions if all(d[1][number] == 4 for number in in_memory)]
    single = (1, tuple(4 if view.memory else 1 for view in views))
    cols = max(neighbours, key=lambda d: d[0], default=single)
    others = list(dimensions)
    if cols in others:
        others.remove(cols)
    rows = max(others, key=lambda d: d[0], default=single)
    if rows in others:
        others.remove(rows)
    for indices in product(*(range(size) for size, _ in others)):
        starts = [
            view.at + sum(index * strides[number] for index, (_, strides) in zip(indices, others, strict=True))
            for number, view in enumerate(views)
        ]
        for i, row_count in parts(rows[0], ROWS_AND_COLUMNS):
            for j, col_count in parts(cols[0], ROWS_AND_COLUMNS):
                places = [
                    (at + i * rows[1][number] + j * cols[1][number], rows[1][number], cols[1][number])
                    for number, at in enumerate(starts)
                ]
                yield {"rows": row_count, "cols": col_count}, places


def matrix_fields(name: str, matrix: View) -> dict[str, int]:
    """Shape and place of a matrix as the fields of an instruction."""
    return {"rows": matrix.sizes[0], "cols": matrix.sizes[1], **_at(name, _place(matrix))}
