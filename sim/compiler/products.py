"""Code for products of matrices: operands quantized into the buffers, results finished and put where they are at home."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt, prod

from nibblecore.hdl.cambriconq.program.isa import Constant, Opcode

from .layout import Layout, Rest, Tensor, Unit
from .optimizers import Pass
from .program import ROWS_AND_COLUMNS, CompileError, Program, Ring, Space, View, matrix_fields, parts

__all__ = ["NBIN", "SB", "Products"]

NBIN, SB = 0, 1
_BLOCK = 1024
"""Values of a row that share a tag at most: cutting a row between blocks changes no result."""
_BANDS, _BAND = 4, 512
"""A product is cut into at most so many bands of at least so many results: each costs an instruction or two."""
_SMALLEST = 2.0**-149
"""x ≥ this says x > 0."""
_FAR_WORD = 1.5
"""Cycles at least for a word read alone from memory; more where memory answers late."""
_TAG_BYTES = 2
_WORTHWHILE = 10_000
"""Cycles that must be saved at least to quantize an operand beforehand: what follows waits for it, and it takes instructions of its own."""


@dataclass(frozen=True)
class Quantized:
    """A matrix in memory as vectors with their tags: first those of the first `cut` columns of all rows, then those of the next `cut`, ….

    Rows and such columns can be taken from it, and then have their vectors one behind the other.

    Members
    -------
    at, tags : int
        Byte addresses, of all of the matrix.
    rows : int
        Of all of it.
    sizes : (int, int)
        Rows and columns of this part.
    row, col : int
        Where it begins.
    """

    at: int
    tags: int
    rows: int
    cut: int
    sizes: tuple[int, int]
    row: int = 0
    col: int = 0

    def part(self, dimension: int, first: int, count: int) -> "Quantized":
        """Some of the rows, or of the columns: `cut` from a multiple of it on, or what is left there."""
        if dimension == 0:
            return replace(self, sizes=(count, self.sizes[1]), row=self.row + first)
        return replace(self, sizes=(self.sizes[0], count), col=self.col + first)

    def first_vector(self, values: int) -> int:
        """Of this part, in the order of vectors of so many values."""
        return self.rows * (self.col // values) + self.row * -(-self.sizes[1] // values)


class Products:
    """A program of a training under construction.

    Nothing that is only computed in for a while lies where the thing before it does, if there is room beside it: so one part can be
    loaded while another is multiplied and a third is stored.

    Members
    -------
    program : Program
    space : Space
        Of NBout, for the part that is being computed.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout, self.config = layout, layout.config
        self.program = Program()
        # Words that instructions spread over whole places; computed, since no instruction stores an immediate.
        at = -(-layout.resident.next // self.config.nbout_lanes) * self.config.nbout_lanes
        self.zero, self.smallest, self.part, self.total, self.right = (View(at + i, (1, 1), (1, 1)) for i in range(5))
        self.scratch_at = at + 5
        self.space = Space(self.config.nbout_words, "NBout", first=self.scratch_at)
        self.rings = {NBIN: Ring(self.config.nbin_lines), SB: Ring(self.config.sb_lines)}
        self.counted = False
        self.passes: Sequence[Pass] = ()
        self._constants: dict[Constant, int] = {}
        # The second is 1 whatever the word held, a NaN too.
        self.program.combine(Opcode.VSTEP, self.smallest, self.smallest, self.smallest)
        self.program.combine(Opcode.VSTEP, self.smallest, self.smallest, self.smallest)
        self.program.scale(self.zero, self.smallest, 0.0)
        self.program.scale(self.smallest, self.smallest, _SMALLEST)

    def end(self) -> Program:
        self.program.emit(Opcode.HALT)
        return self.program

    def set_optimizer(self, passes: Sequence[Pass]) -> None:
        """What is done with every gradient from here on."""
        self.passes = passes
        self._set(passes[0])

    def _set(self, each: Pass) -> None:
        """The constants of a pass, those that the optimizer does not have already."""
        for register, value in each.constants.items():
            if self._constants.get(register) != value:
                self.program.emit(Opcode.CROSET, register=register, value=value)
        self._constants = each.constants

    # Places -------------------------------------------------------------------------------------------------------------

    def _weight(self, unit: Unit) -> View:
        assert unit.weight is not None
        rows, cols = self.layout.shapes[unit.weight]
        return View.matrix(self.layout.weights[unit.weight][0], rows, cols, cols, True)

    def _begin(self, need: int) -> None:
        """`space` of so many words: behind the last if there is room, else at the start of the half where nothing stays."""
        at = self.space.next if self.space.next + need <= self.config.nbout_words else self.scratch_at
        self.space = Space(self.config.nbout_words, "NBout", first=at)

    def _column(self, rows: int) -> View:
        return View.matrix(self.space.take(rows, self.config.nbout_lanes), rows, 1, 1)

    def _matrix(self, rows: int, cols: int) -> View:
        """Rows that begin where those of NBout do, as those of a product must."""
        lanes = self.config.nbout_lanes
        pitch = -(-cols // lanes) * lanes
        return View.matrix(self.space.take(rows * pitch, lanes), rows, cols, pitch)

    def _copied(self, matrix: View) -> View:
        """A copy in NBout."""
        copy = self._matrix(*matrix.sizes)
        self.program.copy(copy, matrix)
        return copy

    def _room(self) -> int:
        lanes = self.config.nbout_lanes
        return self.config.nbout_words - -(-self.scratch_at // lanes) * lanes

    def _need(self, things: int, words: int) -> int:
        """Room for things of so many words each in up to eight matrices: each matrix and each thing in it is rounded to rows of NBout."""
        lanes = self.config.nbout_lanes
        return things * (words + 8 * (lanes - 1)) + 8 * lanes

    def _pieces(self, count: int, words: int, what: str) -> Iterator[tuple[int, int]]:
        """`count` things of so many words each, in as few parts as there is room for; if not at once, then in parts of which two fit."""
        room = self._room()
        each, beside = self._need(1, words) - self._need(0, words), self._need(0, words)
        most = (room - beside) // each if words else count
        if most < 1:
            raise CompileError(f"NBout is too small: {what} need {self._need(1, words)} words to compute in, {room} are free")
        if most < count:
            most = max((room // 2 - beside) // each, 1)
        return parts(count, most)

    # Products -----------------------------------------------------------------------------------------------------------

    def _result(
        self, name: str, dest: View, a: View, w: View, finish: Callable[[View, int, int], None] | None, extra: int = 0
    ) -> None:
        """dest = finish(a · wᵀ), in parts for which there is room.

        `finish` is given a part, its first row and its first column; it needs `extra` words an element. `name` says whose product it is.
        """
        words = dest.memory + extra
        tiles = list(self._tiles(dest.sizes, words))
        left, right, length = self._operands(name, a, w, tiles)
        for i, rows, j, cols in tiles:
            home = dest.part(0, i, rows).part(1, j, cols)
            self._begin(self._tile_need(rows, cols, words))
            tile = self._matrix(rows, cols) if dest.memory else home

            def done(part: View, row: int, col: int, home: View = home, i: int = i, j: int = j) -> None:
                if finish is not None:
                    finish(part, i + row, j + col)
                if dest.memory:
                    self.program.copy(home.part(0, row, part.sizes[0]).part(1, col, part.sizes[1]), part)

            self._product(tile, left.part(0, i, rows), right.part(0, j, cols), length, done)

    def _tiles(self, sizes: tuple[int, ...], words: int) -> Iterator[tuple[int, int, int, int]]:
        """First row, rows, first column, columns of parts of a matrix with `words` words of scratch an element.

        As large as there is room for, since every part fetches its operands again. Whole rows, unless so few fit that it would be again
        and again: then squares.
        """
        (rows, cols), lanes = sizes, self.config.nbout_lanes
        high, wide, room = rows, cols, self._room()
        if words and self._tile_need(rows, cols, words) > room:
            area = (room - self._tile_need(0, 0, 0)) // words
            if area < lanes:
                raise CompileError(
                    f"NBout is too small: a product needs {self._tile_need(1, 1, words)} words to compute in, {room} are free"
                )
            high = area // (-(-cols // lanes) * lanes)
            if high < min(rows, 4 * self.config.rows):
                high = min(rows, max(isqrt(area), 1), area // lanes)
                wide = area // high // lanes * lanes
        for i, i_count in parts(rows, high):
            for j, j_count in parts(cols, wide):
                yield i, i_count, j, j_count

    def _tile_need(self, rows: int, cols: int, words: int) -> int:
        lanes = self.config.nbout_lanes
        return words * rows * -(-cols // lanes) * lanes + 4 * lanes

    def _completing(self, rest: Rest, place: Callable[[Tensor], View]) -> Callable[[View, int, int], None] | None:
        """What is done with parts of a product that is a gradient; `place` says where its elements are in other tensors of its shape."""
        if not rest.words:
            return None

        def finish(tile: View, row: int, col: int) -> None:
            self._completed(tile, rest, lambda tensor: place(tensor).part(0, row, tile.sizes[0]).part(1, col, tile.sizes[1]))

        return finish

    def _completed(self, gradient: View, rest: Rest, place: Callable[[Tensor], View]) -> None:
        """A gradient gets what it lacks: it needs `rest.words` of scratch an element."""
        for tensor in rest.addends:
            addend = place(tensor)
            if addend.memory:
                held = self._matrix(gradient.sizes[0], prod(gradient.sizes[1:])).split(1, *gradient.sizes[1:])
                self.program.copy(held, addend)
                addend = held
            self.program.combine(Opcode.VADD, gradient, gradient, addend)
        if rest.relu is not None:
            self._masked(gradient, place(rest.relu))

    def _masked(self, error: View, x: View) -> None:
        mask = self._matrix(error.sizes[0], prod(error.sizes[1:])).split(1, *error.sizes[1:])
        if x.memory:
            self.program.copy(mask, x)
            x = mask
        self.program.combine(Opcode.VSTEP, mask, x, self.smallest.spread(error.sizes))
        self.program.combine(Opcode.VMUL, error, error, mask)

    def _learn(self, unit: Unit, a: View, w: View) -> None:
        """Weight gradient, straight to the optimizer."""
        assert unit.weight is not None
        tiles = list(self._tiles(self.layout.shapes[unit.weight], 1))
        left, right, length = self._operands(f"gradient of weights {unit.weight}", a, w, tiles)
        for i, tile_rows, j, tile_cols in tiles:
            self._begin(self._tile_need(tile_rows, tile_cols, 1))

            def done(part: View, row: int, col: int, i: int = i, j: int = j) -> None:
                self._update(unit.weight, part, i + row, j + col)

            self._product(self._matrix(tile_rows, tile_cols), left.part(0, i, tile_rows), right.part(0, j, tile_cols), length, done)

    def _update(self, parameter: int | None, gradient: View, row: int = 0, col: int = 0) -> None:
        """A part of a gradient, from some row and column on, to the optimizer."""
        assert parameter is not None
        cols = self.layout.shapes[parameter][1]
        for each in self.passes:
            self._set(each)
            w, m, v = (place + 4 * (row * cols + col) for place in self.layout.weights[parameter])
            if each.exchanged:
                w, m = m, w
            self.program.emit(Opcode.WGSTORE, **matrix_fields("src", gradient), w=w, m=m, v=v, mem_row=4 * cols)

    def _operands(
        self, name: str, a: View, w: View, tiles: Sequence[tuple[int, int, int, int]]
    ) -> tuple[View | Quantized, View | Quantized, int]:
        """Those of a product in parts as of `_tiles`, quantized beforehand if that pays, and the values of a row to multiply at a time."""
        _, rows, _, cols = tiles[0]
        length = self._length(a.sizes[0], w.sizes[0], a.sizes[1])
        if min(length, a.sizes[1]) > _BLOCK and not self._halves_held(min(length, a.sizes[1])):
            length = _BLOCK
        a_rows, w_rows = self._fitting_rows(rows, cols, min(length, a.sizes[1]), length < a.sizes[1])
        a_times = len({j for _, _, j, _ in tiles}) * (-(-cols // w_rows) if rows > a_rows else 1)
        w_times = len({i for i, *_ in tiles})
        return self._once(f"{name}: a", a, length, a_times), self._once(f"{name}: w", w, length, w_times), length

    def _halves_held(self, length: int) -> int:
        """Columns of `length` words each, whole rows of NBout, of which half the room to compute in holds as many."""
        return self._room() // 2 // length // self.config.nbout_lanes * self.config.nbout_lanes

    def _once(self, name: str, matrix: View, length: int, times: int) -> View | Quantized:
        """An operand that is fetched so often: quantized and kept in memory, if that takes less time and there is a place for it.

        What memory holds across goes to NBout first as it lies, beats at a time: a word read alone costs a beat, and the time memory takes.
        """
        config, slot = self.config, self.layout.bits // 4
        rows, cols = matrix.sizes
        vectors = rows * sum(-(-count // config.cols) for _, count in parts(cols, length))
        # Cycles a vector: now, and of the busier lane if it is quantized beforehand.
        beats = config.cols // config.beat_words * len(self.layout.offsets)
        along = 4 if matrix.memory else 1
        beside = matrix.memory and matrix.strides[0] == along and (matrix.at | matrix.strides[1]) % config.bus_bytes == 0
        held = self._halves_held(min(length, cols)) if beside else 0
        quantizing = beats if matrix.strides[1] == along else max(beats, config.cols * (_FAR_WORD if matrix.memory else 1))
        moving = slot + 1
        if held:
            before: tuple[float, float] = max(config.cols, beats) + moving, config.cols / config.beat_words
        else:
            before = (moving, quantizing) if matrix.memory else (quantizing + moving, 0)
        if quantizing * times * vectors <= max(before[0], before[1] + moving * times) * vectors + _WORTHWHILE:
            return matrix
        place = self.layout.quantized_place(name, vectors * (slot * config.line_bytes + _TAG_BYTES))
        if place is None:
            return matrix
        quantized = Quantized(place, place + vectors * slot * config.line_bytes, rows, length, (rows, cols))
        for col, count in parts(cols, length):
            source, dest = matrix.part(1, col, count), quantized.part(1, col, count)
            row_vectors = -(-count // config.cols)
            if not matrix.memory:
                self.program.emit(Opcode.QSTORE, slot=slot, **matrix_fields("src", source), **self._vectors_fields("dest", dest))
                continue
            fitting = max(config.nbin_lines // (2 * row_vectors * slot), 1)
            for row, some in parts(rows, min(held or fitting, fitting)):
                part = source.part(0, row, some)
                if held:
                    self._begin(self._tile_need(count, some, 1))
                    part = self._copied(part.turned).turned
                line = self._fetch(NBIN, part, slot)
                self.program.emit(
                    Opcode.VSTORE,
                    side=NBIN,
                    slot=slot,
                    vectors=some * row_vectors,
                    src=line,
                    **self._vectors_fields("dest", dest.part(0, row, some)),
                )
        return quantized

    def _vectors_fields(self, name: str, matrix: Quantized) -> dict[str, int]:
        """Where the lines and the tags of a part lie."""
        first = matrix.first_vector(self.config.cols)
        line_bytes = self.layout.bits // 4 * self.config.line_bytes
        return {name: matrix.at + first * line_bytes, f"{name}_tags": matrix.tags + first * _TAG_BYTES}

    def _product(
        self,
        dest: View,
        a: View | Quantized,
        w: View | Quantized,
        length: int,
        done: Callable[[View, int, int], None] | None = None,
    ) -> None:
        """dest = a · wᵀ in NBout, in parts that fit the buffers of operands, `length` values of a row at a time (`_length`).

        `done` is given each part that is ready, its first row and its first column, while what follows has yet to be multiplied.
        """
        config, slot = self.config, self.layout.bits // 4
        for k, k_count in parts(a.sizes[1], length):
            vectors = -(-k_count // config.cols)
            row_lines = vectors * slot
            a_rows, w_rows = self._fitting_rows(a.sizes[0], w.sizes[0], k_count, length < a.sizes[1])
            a_part, w_part = a.part(1, k, k_count), w.part(1, k, k_count)
            for j, w_count in parts(w.sizes[0], w_rows):
                w_line = self._fetch(SB, w_part.part(0, j, w_count), slot)
                for i, a_count in parts(a.sizes[0], a_rows):
                    if j == 0 or a.sizes[0] > a_rows:
                        a_line = self._fetch(NBIN, a_part.part(0, i, a_count), slot)
                    ready = done is not None and k + k_count == a.sizes[1]
                    for band, rows in self._bands(a_count, w_count) if ready else [(0, a_count)]:
                        part = dest.part(0, i + band, rows).part(1, j, w_count)
                        self._multiply(part, a_line + band * row_lines, w_line, row_lines, accumulate=k > 0)
                        if done is not None and ready:
                            done(part, i + band, j)

    def _multiply(self, dest: View, a_line: int, w_line: int, row_lines: int, *, accumulate: bool) -> None:
        """Rows that lie in the buffers, so many lines each."""
        slot = self.layout.bits // 4
        vectors = row_lines // slot
        self.program.emit(
            Opcode.MM,
            accumulate=int(accumulate),
            group=min(4 // slot, 1 << (vectors - 1).bit_length()),
            rows=dest.sizes[0],
            cols=dest.sizes[1],
            dest=dest.at,
            dest_row=dest.strides[0],
            a=a_line,
            a_row=row_lines,
            w=w_line,
            w_row=row_lines,
            a_slot=slot,
            w_slot=slot,
            vectors=vectors,
        )

    def _fitting_rows(self, a_rows: int, w_rows: int, length: int, cut: bool) -> tuple[int, int]:
        """Of a and of w, that are in the buffers at a time. `cut`: their rows are longer than `length`."""
        config, row_lines = self.config, -(-length // self.config.cols) * self.layout.bits // 4
        a_fitting, w_fitting = (min(lines // row_lines, ROWS_AND_COLUMNS) for lines in (config.nbin_lines, config.sb_lines))
        # Halves where that fetches nothing more often: of a for every part of w, unless it is there whole.
        if a_rows > a_fitting or (cut and w_rows <= w_fitting):
            a_fitting = self._half(a_fitting, a_rows)
        elif w_rows > w_fitting:
            w_fitting = self._half(w_fitting, w_rows)
        # Parts of a row of results begin where a row of NBout does.
        if w_fitting < w_rows:
            w_fitting -= w_fitting % config.nbout_lanes
        return a_fitting, w_fitting

    def _bands(self, rows: int, cols: int) -> Iterator[tuple[int, int]]:
        """Rows of a product that are finished and stored while the next are multiplied."""
        return parts(rows, max(-(-rows // _BANDS), -(-_BAND // cols), self.config.rows))

    def _half(self, fitting: int, rows: int) -> int:
        """Of the rows that fit a buffer, unless too few for the PEs."""
        half = fitting // 2
        return half if half >= min(rows, self.config.rows) else fitting

    def _length(self, a_rows: int, w_rows: int, length: int) -> int:
        """Values of a row that are multiplied at a time: all, if enough rows fit the buffers, else whole blocks, else what fits."""
        config, slot = self.config, self.layout.bits // 4

        def fitting(a_wanted: int, w_wanted: int, share: int = 1) -> int:
            lines = min(config.nbin_lines // share // min(a_rows, a_wanted), config.sb_lines // share // min(w_rows, w_wanted))
            return min(lines // slot, ROWS_AND_COLUMNS // config.cols) * config.cols

        good, least = fitting(config.rows, config.rows), fitting(1, config.nbout_lanes)
        if length <= good:
            return length
        blocks = (fitting(config.rows, config.rows, share) // _BLOCK * _BLOCK for share in (2, 1))
        block = next((block for block in blocks if block), 0)
        if block:
            return block
        if length <= least:
            return length
        if not least:
            raise CompileError(
                f"vectors of {slot} lines, {config.nbout_lanes} rows of weights: NBin has {config.nbin_lines} lines, SB {config.sb_lines}"
            )
        return least

    def _fetch(self, side: int, rows: View | Quantized, slot: int) -> int:
        """Quantized into the buffer, from the line that is returned on."""
        row_vectors = -(-rows.sizes[1] // self.config.cols)
        row_lines = row_vectors * slot
        line = self.rings[side].take(rows.sizes[0] * row_lines)
        if isinstance(rows, Quantized):
            for first, count in self._bands(*rows.sizes):
                part = self._vectors_fields("src", rows.part(0, first, count))
                self.program.emit(
                    Opcode.VLOAD, side=side, slot=slot, vectors=count * row_vectors, dest=line + first * row_lines, **part
                )
            return line
        opcode = Opcode.QLOAD if rows.memory else Opcode.QMOVE
        for first, count in self._bands(*rows.sizes):
            self.program.emit(
                opcode, side=side, slot=slot, dest=line + first * row_lines, **matrix_fields("src", rows.part(0, first, count))
            )
        return line
