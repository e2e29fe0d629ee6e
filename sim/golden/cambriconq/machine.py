"""Functional model of the whole machine: executes the same binaries as the hardware, one instruction after the other.

Memory and every buffer hold after each instruction what docs/cambriconq.md and docs/cambriconq-isa.md say, bit for bit; how long
anything takes is not modelled.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.buffers.tag import Tag
from nibblecore.sim.golden.cambriconq.movers.vector_turner import turned
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.golden.cambriconq.program.instruction_checker import check
from nibblecore.sim.golden.cambriconq.quantize.squ import Candidate, SquParameters, quantize_block
from nibblecore.sim.golden.cambriconq.update.bus_updater import bus_updater
from nibblecore.sim.golden.cambriconq.update.ndpo import Optimizer
from nibblecore.sim.golden.cambriconq.update.weight_updater import weight_updater
from nibblecore.sim.golden.cambriconq.vector.sfu import elementwise
from numpy.typing import NDArray

__all__ = ["BLOCK", "Machine", "MachineError", "Tag"]

BLOCK = 1024
"""Values in the largest LDQ block."""


class MachineError(Exception):
    """A program was stopped at instruction `index`; nothing that this would have written is, but for the rows that WGSTORE had updated
    when the engine beside the memory refused one.
    """

    def __init__(self, code: ErrorCode, index: int, text: str) -> None:
        super().__init__(f"instruction {index}: {code.name}: {text}")
        self.code, self.index = code, index


class Decoded(Protocol):
    """What a decoder makes of an instruction: the name of its opcode and the values of its fields."""

    @property
    def opcode(self) -> Any: ...

    @property
    def fields(self) -> dict[str, int]: ...


class _Stop(Exception):
    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Settings:
    """What CROSET has set of an SQU."""

    candidates: list[Candidate] = field(default_factory=lambda: [Candidate(bits=8)] * 4)
    count: int = 1
    metric: int = 0
    exponent: int | None = None

    def parameters(self) -> SquParameters:
        return SquParameters(candidates=tuple(self.candidates[: self.count]), metric=self.metric, exponent=self.exponent)


@dataclass
class Buffer:
    """Lines of M nibbles, each with a tag."""

    lines: NDArray[np.uint8]
    tags: list[Tag | None]

    @classmethod
    def of(cls, lines: int, cols: int) -> "Buffer":
        return cls(np.zeros((lines, cols), np.uint8), [None] * lines)

    def vector(self, line: int, slot: int) -> tuple[NDArray[np.int64], Tag]:
        """The M integers that begin at a line, and their tag."""
        if line + slot > len(self.tags):
            raise _Stop(ErrorCode.BUFFER_RANGE, f"the vector at line {line} ends beyond the buffer")
        tag = self.tags[line]
        if tag is None or any(self.tags[line + i] != tag for i in range(slot)):
            raise _Stop(ErrorCode.NO_TAG, f"no vector of {slot} lines is at line {line}, or not a whole one")
        value = np.zeros(self.lines.shape[1], np.int64)
        for i in range(slot):
            value |= self.lines[line + i].astype(np.int64) << 4 * i
        return value - ((value >> 4 * slot - 1) << 4 * slot), tag

    def store(self, line: int, values: NDArray[np.int64], tag: Tag, slot: int) -> None:
        for i in range(slot):
            self.lines[line + i] = values >> 4 * i & 15
            self.tags[line + i] = tag


@dataclass
class Machine:
    """Memory, buffers and constants; `run` executes a program.

    Parameters
    ----------
    config : CambriconqConfig
    memory : uint8 array
        The whole memory; changed in place.
    function : callable
        ``function(number, values)``: the unary functions of VFUN on float32 arrays.
    """

    config: CambriconqConfig
    memory: NDArray[np.uint8]
    function: Callable[[int, NDArray[np.float32]], NDArray[np.float32]]
    executed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        c = self.config
        self.buffers = [Buffer.of(c.nbin_lines, c.cols), Buffer.of(c.sb_lines, c.cols)]
        self.nbout = np.zeros(c.nbout_words, np.float32)
        self.core_squ, self.memory_squ = Settings(), Settings()
        self.optimizer = Optimizer()
        self.nan_seen = self.infinity_seen = False

    def run(self, address: int, decode: Callable[[bytes], Decoded], size: int) -> int:
        """Execute from a byte address up to HALT; returns the number of instructions.

        `decode` takes `size` bytes. Raises MachineError where a program is stopped, for the first instruction that fails.
        """
        if address % size:
            raise MachineError(ErrorCode.MISALIGNED, 0, f"a program cannot begin at {address:#x}")
        index, name = 0, ""
        while name != "HALT":
            try:
                name = self._step(address + index * size, decode, size)
            except _Stop as stop:
                raise MachineError(stop.code, index, str(stop)) from None
            index += 1
        return index

    def run_on(self, address: int, decode: Callable[[bytes], Decoded], size: int, first: int, end: int) -> None:
        """Execute instructions `first` to `end` − 1 of the program at `address`, as far as they do not fail."""
        for index in range(first, end):
            with suppress(_Stop):
                self._step(address + index * size, decode, size)

    def _step(self, address: int, decode: Callable[[bytes], Decoded], size: int) -> str:
        """Execute the instruction at an address; returns its name."""
        raw = self.memory[address : address + size].tobytes()
        if len(raw) < size:
            raise _Stop(ErrorCode.MEMORY_RANGE, "the program runs out of memory")
        try:
            instruction = decode(raw)
        except ValueError as error:
            raise _Stop(ErrorCode.ILLEGAL_INSTRUCTION, str(error)) from None
        name = str(instruction.opcode.name)
        self.executed[name] += 1
        if name == "HALT":
            return name
        code = check(name, instruction.fields, self.config, len(self.memory))
        if code != ErrorCode.NONE:
            raise _Stop(code, f"{name} {instruction.fields}")
        operands = {field: value for field, value in instruction.fields.items() if field != "phase"}
        with np.errstate(all="ignore"):
            getattr(self, f"_{name.lower()}")(**operands)
        return name

    # Places -----------------------------------------------------------------------------------------------------------

    @staticmethod
    def _grid(at: int, row: int, col: int, rows: int, cols: int) -> NDArray[np.int64]:
        offsets = np.arange(rows, dtype=np.int64)[:, None] * row + np.arange(cols, dtype=np.int64) * col
        return at + offsets

    def _memory_words(self, at: int, row: int, col: int, rows: int, cols: int) -> NDArray[np.int64]:
        return self._grid(at, row, col, rows, cols) >> 2

    @property
    def _floats(self) -> NDArray[np.float32]:
        return self.memory.view(np.float32)

    # Constants --------------------------------------------------------------------------------------------------------

    def _croset(self, register: int, value: int) -> None:
        if register <= 6:
            self.optimizer.set(register, value)
            return
        settings = self.core_squ if register < 32 else self.memory_squ
        number = (register - 16) % 16
        if number == 0:
            settings.count, settings.metric = (value & 3) + 1, value >> 2 & 3
            settings.exponent = (value >> 8) - 2 * (value >> 8 & 128) if value >> 4 & 1 else None
        else:
            bits, offset, clip = 4 * (value & 3) + 4, value >> 4 & 15, value >> 16
            settings.candidates[number - 1] = Candidate(bits=bits, offset=offset - 2 * (offset & 8), clip=clip)

    # Loads and stores ---------------------------------------------------------------------------------------------------

    def _sload(self, rows: int, cols: int, dest: int, dest_row: int, dest_col: int, src: int, src_row: int) -> None:
        places = self._grid(dest, dest_row, dest_col, rows, cols)
        self.nbout[places] = self._floats[self._memory_words(src, src_row, 4, rows, cols)]

    def _sstore(self, rows: int, cols: int, dest: int, dest_row: int, src: int, src_row: int, src_col: int) -> None:
        places = self._memory_words(dest, dest_row, 4, rows, cols)
        self._floats[places] = self.nbout[self._grid(src, src_row, src_col, rows, cols)]

    def _vload(self, side: int, slot: int, vectors: int, dest: int, src: int, src_tags: int) -> None:
        size, buffer = self.config.line_bytes, self.buffers[side]
        packed = self.memory[src : src + vectors * slot * size].reshape(vectors, slot, size)
        words = self.memory[src_tags : src_tags + 2 * vectors].view(np.uint16)
        tags = [Tag.unpack(int(word)) for word in words]
        if any(tag.bits > 4 * slot for tag in tags) or any(int(word) >> 10 for word in words):
            raise _Stop(ErrorCode.BAD_FORMAT, "a tag in memory does not fit its slot")
        for number, tag in enumerate(tags):
            for plane, line in enumerate(packed[number]):
                buffer.lines[dest + number * slot + plane] = np.stack([line & 15, line >> 4], axis=-1).ravel()
                buffer.tags[dest + number * slot + plane] = tag

    def _vstore(self, side: int, slot: int, vectors: int, src: int, dest: int, dest_tags: int) -> None:
        found = [self.buffers[side].vector(src + number * slot, slot) for number in range(vectors)]
        self._put_vectors(found, slot, dest, dest_tags)

    def _put_vectors(self, found: list[tuple[NDArray[np.int64], Tag]], slot: int, dest: int, dest_tags: int) -> None:
        size = self.config.line_bytes
        for number, (values, tag) in enumerate(found):
            for plane in range(slot):
                nibbles = (values >> 4 * plane & 15).astype(np.uint8).reshape(-1, 2)
                at = dest + (number * slot + plane) * size
                self.memory[at : at + size] = nibbles[:, 0] | nibbles[:, 1] << 4
            self.memory[dest_tags + 2 * number : dest_tags + 2 * number + 2] = np.frombuffer(
                tag.pack().to_bytes(2, "little"), np.uint8
            )

    def _quantized(self, rows: NDArray[np.float32], settings: Settings, slot: int) -> list[tuple[NDArray[np.int64], Tag]]:
        """All vectors of all rows, each row padded with zeros to whole vectors and cut into blocks."""
        cols, parameters = self.config.cols, settings.parameters()
        if any(candidate.bits > 4 * slot for candidate in parameters.candidates):
            raise _Stop(ErrorCode.BAD_FORMAT, f"a candidate may not fit a slot of {slot} lines")
        padded = np.zeros((len(rows), -(-rows.shape[1] // cols) * cols), np.float32)
        padded[:, : rows.shape[1]] = rows
        vectors = []
        for row in padded.view(np.uint32):
            for first in range(0, len(row), BLOCK):
                block = quantize_block(row[first : first + BLOCK], parameters)
                self.nan_seen |= block.nan
                self.infinity_seen |= block.infinity
                vectors += [(values, Tag(block.e, block.bits)) for values in block.q.reshape(-1, cols)]
        return vectors

    def _to_buffer(self, vectors: list[tuple[NDArray[np.int64], Tag]], side: int, slot: int, dest: int) -> None:
        for number, (values, tag) in enumerate(vectors):
            self.buffers[side].store(dest + number * slot, values, tag, slot)

    def _qload(self, side: int, slot: int, rows: int, cols: int, dest: int, src: int, src_row: int, src_col: int) -> None:
        found = self._floats[self._memory_words(src, src_row, src_col, rows, cols)]
        self._to_buffer(self._quantized(found, self.memory_squ, slot), side, slot, dest)

    def _qmove(self, side: int, slot: int, rows: int, cols: int, dest: int, src: int, src_row: int, src_col: int) -> None:
        found = self.nbout[self._grid(src, src_row, src_col, rows, cols)]
        self._to_buffer(self._quantized(found, self.core_squ, slot), side, slot, dest)

    def _vturn(
        self, side: int, src_side: int, slot: int, rows: int, cols: int, dest: int, dest_row: int, src: int, src_row: int
    ) -> None:
        for number, row in enumerate(turned(self.buffers[src_side], rows, cols, slot, src, src_row, self.config.cols)):
            self._to_buffer(row, side, slot, dest + number * dest_row)

    def _qstore(self, slot: int, rows: int, cols: int, dest: int, dest_tags: int, src: int, src_row: int, src_col: int) -> None:
        found = self.nbout[self._grid(src, src_row, src_col, rows, cols)]
        vectors = self._quantized(found, self.core_squ, slot)
        self._put_vectors(vectors, slot, dest, dest_tags)

    def _wgstore(self, rows: int, cols: int, w: int, m: int, v: int, src: int, src_row: int, src_col: int, mem_row: int) -> None:
        gradient = self.nbout[self._grid(src, src_row, src_col, rows, cols)]
        if self.config.dram is not None:
            words = self.memory.view(np.uint32)
            code = weight_updater(self.config.dram, words, self.optimizer, (w, m, v), mem_row, gradient.view(np.uint32))
            if code != ErrorCode.NONE:
                raise _Stop(code, "the engine beside the memory takes w, m and v of no such row")
            return
        bus_updater(self._floats, self.optimizer, (w, m, v), mem_row, gradient)

    # The PE array -------------------------------------------------------------------------------------------------------

    def _mm(self, rows: int, a: int, a_row: int, a_slot: int, vectors: int, **fields: int) -> None:
        starts = [[a + i * a_row + v * a_slot for v in range(vectors)] for i in range(rows)]
        self._products(starts, rows=rows, a_slot=a_slot, **fields)

    def _conv(
        self,
        rows: int,
        a: int,
        a_row: int,
        a_slot: int,
        vectors: int,
        a_col: int,
        out_width: int,
        stride: int,
        kernel_rows: int,
        kernel_cols: int,
        **fields: int,
    ) -> None:
        starts = []
        for i in range(rows):
            corner = a + i // out_width * stride * a_row + i % out_width * stride * a_col
            starts.append(
                [
                    corner + ky * a_row + kx * a_col + v * a_slot
                    for ky in range(kernel_rows)
                    for kx in range(kernel_cols)
                    for v in range(vectors)
                ]
            )
        self._products(starts, rows=rows, a_slot=a_slot, **fields)

    def _products(
        self,
        starts: list[list[int]],
        *,
        accumulate: int,
        group: int,
        rows: int,
        cols: int,
        dest: int,
        dest_row: int,
        w: int,
        w_row: int,
        a_slot: int,
        w_slot: int,
    ) -> None:
        """dest[i][j] = Σ over groups of vectors of the correctly rounded Σ of their integer products."""
        places = self._grid(dest, dest_row, 1, rows, cols)
        count = len(starts[0])
        a = [[self.buffers[0].vector(line, a_slot) for line in row] for row in starts]
        weights = [[self.buffers[1].vector(w + j * w_row + v * w_slot, w_slot) for v in range(count)] for j in range(cols)]
        total = self.nbout[places] if accumulate else None
        for first in range(0, count, group):
            inside = range(first, min(first + group, count))
            for side in (a, weights):
                if any(row[v][1] != row[first][1] for row in side for v in inside):
                    raise _Stop(ErrorCode.TAG_MISMATCH, f"vectors {first}..{inside[-1]} of a row differ in their tags")
            left = np.array([np.concatenate([row[v][0] for v in inside]) for row in a])
            right = np.array([np.concatenate([row[v][0] for v in inside]) for row in weights])
            exponent = np.add.outer([row[first][1].exponent for row in a], [row[first][1].exponent for row in weights])
            # 38 bits are exact in a double, and so is the power of two: one rounding, to float32.
            part = np.ldexp((left @ right.T).astype(np.float64), exponent).astype(np.float32)
            total = part if total is None else total + part
        assert total is not None
        self._put(places, total)

    # Vectors in NBout ---------------------------------------------------------------------------------------------------

    def _binary(
        self,
        operation: Callable[..., NDArray[np.float32]],
        rows: int,
        cols: int,
        dest: int,
        dest_row: int,
        dest_col: int,
        a: int,
        a_row: int,
        a_col: int,
        b: int,
        b_row: int,
        b_col: int,
    ) -> None:
        places = self._grid(dest, dest_row, dest_col, rows, cols)
        left, right = self._grid(a, a_row, a_col, rows, cols), self._grid(b, b_row, b_col, rows, cols)
        self._put(places, operation(self.nbout[left], self.nbout[right]))

    def _put(self, places: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Every NaN that is produced is the quiet one."""
        self.nbout[places] = np.where(np.isnan(values), np.float32(np.nan), values)

    def _vadd(self, **fields: int) -> None:
        self._binary(np.add, **fields)

    def _vsub(self, **fields: int) -> None:
        self._binary(np.subtract, **fields)

    def _vmul(self, **fields: int) -> None:
        self._binary(np.multiply, **fields)

    def _vmax(self, **fields: int) -> None:
        self._binary(partial(elementwise, "max"), **fields)

    def _vstep(self, **fields: int) -> None:
        self._binary(lambda a, b: (a >= b).astype(np.float32), **fields)

    def _vfmul(
        self, rows: int, cols: int, dest: int, dest_row: int, dest_col: int, a: int, a_row: int, a_col: int, value: int
    ) -> None:
        places = self._grid(dest, dest_row, dest_col, rows, cols)
        factor = np.array([value], np.uint32).view(np.float32)[0]
        self._put(places, self.nbout[self._grid(a, a_row, a_col, rows, cols)] * factor)

    def _vfun(
        self, function: int, rows: int, cols: int, dest: int, dest_row: int, dest_col: int, a: int, a_row: int, a_col: int
    ) -> None:
        places = self._grid(dest, dest_row, dest_col, rows, cols)
        self._put(places, self.function(function, self.nbout[self._grid(a, a_row, a_col, rows, cols)]))

    def _horizontal(
        self,
        operation: Callable[..., NDArray[np.float32]],
        rows: int,
        cols: int,
        dest: int,
        dest_row: int,
        src: int,
        src_row: int,
        src_col: int,
    ) -> None:
        places = self._grid(dest, dest_row, 0, rows, 1)[:, 0]
        values = self.nbout[self._grid(src, src_row, src_col, rows, cols)]
        result = values[:, 0]
        for column in range(1, cols):
            result = operation(result, values[:, column])
        self._put(places, result)

    def _hadd(self, **fields: int) -> None:
        self._horizontal(np.add, **fields)

    def _hmul(self, **fields: int) -> None:
        self._horizontal(np.multiply, **fields)

    def _hmax(self, **fields: int) -> None:
        self._horizontal(partial(elementwise, "max"), **fields)
