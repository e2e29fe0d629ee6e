"""Random programs on Cambricon-Q's Verilog and on its functional model: every byte of memory, and why and where they end.

    nibblecore regress --machine cambriconq --config tiny --count 1000 --seed 1

Each program gets its own seed, printed when it fails; ``--only SEED`` runs that one again.
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, Constant, Instruction, Opcode, Unary, decode, encode
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.control.scoreboard import Space, ranges
from nibblecore.sim.golden.cambriconq.program.instruction_checker import check
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator, ProgramError
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport
from numpy.typing import NDArray
from tqdm import tqdm

__all__ = ["Pair", "main", "run_one"]

STALLS = (0.0, 0.1, 0.5)
MEMORY_BYTES = 1 << 18
PROGRAM = MEMORY_BYTES - (1 << 14)
"""Where programs lie; what they touch lies below."""
WINDOW = 4096

_BINARY = (Opcode.VADD, Opcode.VSUB, Opcode.VMUL, Opcode.VMAX, Opcode.VSTEP)


@dataclass
class _Grid:
    """Where the elements of a shape lie."""

    at: int
    row: int
    col: int
    rows: int
    cols: int

    def places(self) -> NDArray[np.int64]:
        return (self.at + np.arange(self.rows)[:, None] * self.row + np.arange(self.cols) * self.col).ravel()

    def fields(self, name: str, *, columns: bool = True) -> dict[str, int]:
        return {name: self.at, f"{name}_row": self.row} | ({f"{name}_col": self.col} if columns else {})


@dataclass
class _Program:
    """Draws instructions that are in order, most of them."""

    rng: np.random.Generator
    config: CambriconqConfig
    instructions: list[Instruction] = field(default_factory=list)
    window: int = 0
    """Words of NBout from here on are used; to fill it all would take longer than most programs."""
    least_slot: dict[Constant, int] = field(default_factory=dict)
    unseen: list[_Grid] = field(default_factory=list)
    """Results that are not yet stored."""
    narrow: bool = False
    """All in 4 bits."""

    def emit(self, opcode: Opcode, **fields: int) -> None:
        if opcode not in (Opcode.HALT, Opcode.CROSET):
            fields["phase"] = self.integer(0, 7)
        self.instructions.append(Instruction.of(opcode, **{name: int(value) for name, value in fields.items()}))

    def integer(self, low: int, high: int) -> int:
        """low..high, both included."""
        return int(self.rng.integers(low, high + 1))

    def shape(self, most: int = 24) -> tuple[int, int]:
        return self.integer(1, most), self.integer(1, most)

    def grid(self, rows: int, cols: int, *, unit: int = 1, limit: int, columns: bool = True, alone: bool = True) -> _Grid:
        """Anywhere below `limit`; `alone`: no two elements at one place. Rows or columns may be innermost, rows may begin with beats."""
        step = self.config.beat_words if self.rng.random() < 0.6 else 1
        if columns and self.rng.random() < 0.3:
            row, col = 1, rows + self.integer(0, 3)
        else:
            col = 1 if not columns or self.rng.random() < 0.8 else 2
            row = -(-((cols - 1) * col + 1 + self.integer(0, 3)) // step) * step
        if not alone and self.rng.random() < 0.3:
            row, col = (0, col) if self.rng.random() < 0.5 else (row, 0)
        span = (rows - 1) * row + (cols - 1) * col + 1
        return _Grid(unit * step * self.integer(0, (limit // unit - span) // step), unit * row, unit * col, rows, cols)

    def nbout(self, rows: int, cols: int, *, alone: bool = True) -> _Grid:
        grid = self.grid(rows, cols, limit=WINDOW, alone=alone)
        grid.at += self.window
        return grid

    def memory(self, rows: int, cols: int, *, columns: bool = True) -> _Grid:
        grid = self.grid(rows, cols, unit=4, limit=PROGRAM, columns=columns)
        return grid

    def apart(self, rows: int, cols: int, *others: _Grid) -> _Grid:
        """A place in NBout that touches none of the others."""
        while True:
            grid = self.nbout(rows, cols)
            if not any(np.intersect1d(grid.places(), other.places()).size for other in others):
                return grid

    # Pieces -------------------------------------------------------------------------------------------------------------

    def settings(self, base: Constant | None = None) -> None:
        """One SQU's, for candidates of up to 16 bits."""
        base = base or (Constant.SQU if self.rng.random() < 0.5 else Constant.MEMORY_SQU)
        count = self.integer(1, 4) if self.rng.random() < 0.3 else 1
        bypass = self.rng.random() < 0.1
        value = (count - 1) | self.integer(0, 2) << 2 | (1 << 4 | (self.integer(-12, 2) & 255) << 8 if bypass else 0)
        self.emit(Opcode.CROSET, register=base, value=value)
        self.least_slot[base] = 1
        for number in range(count):
            size = 0 if self.narrow else int(self.rng.choice([0, 1, 1, 2, 3]))
            clip = (1 << 4 * size + 3) - 1 if self.rng.random() < 0.7 else self.integer(1, (1 << 4 * size + 3) - 1)
            self.least_slot[base] = max(self.least_slot[base], size + 1)
            offset = self.integer(-8, 7) if self.rng.random() < 0.3 else 0
            self.emit(Opcode.CROSET, register=base + 1 + number, value=size | (offset & 15) << 4 | clip << 16)

    def constants(self) -> None:
        for register in range(6):
            value = np.float32(abs(self.rng.normal()))
            self.emit(Opcode.CROSET, register=register, value=int(value.view(np.uint32)))
        self.emit(Opcode.CROSET, register=Constant.OPTIMIZER, value=self.integer(0, 3))

    def show(self, grid: _Grid) -> None:
        """Store what an instruction has put into NBout, so that it is compared: at once, which waits for it, or later."""
        self.unseen.append(grid)
        if self.rng.random() < 0.5:
            self.store(self.unseen.pop())

    def store(self, grid: _Grid) -> None:
        dest = self.memory(grid.rows, grid.cols, columns=False)
        self.emit(Opcode.SSTORE, rows=grid.rows, cols=grid.cols, **dest.fields("dest", columns=False), **grid.fields("src"))

    def stripes(self) -> None:
        rows, cols = self.shape()
        dest = self.nbout(rows, cols)
        self.emit(
            Opcode.SLOAD,
            rows=rows,
            cols=cols,
            **dest.fields("dest"),
            **self.memory(rows, cols, columns=False).fields("src", columns=False),
        )
        self.show(dest)

    def arithmetic(self) -> None:
        rows, cols = self.shape(12)
        a, b = self.nbout(rows, cols, alone=False), self.nbout(rows, cols, alone=False)
        dest = self.apart(rows, cols, a, b)
        kind = self.integer(0, 3)
        if kind == 0:
            self.emit(
                Opcode.VFUN,
                function=int(self.rng.choice(list(Unary))),
                rows=rows,
                cols=cols,
                **dest.fields("dest"),
                **a.fields("a"),
            )
        elif kind == 1:
            value = int(np.float32(self.rng.normal()).view(np.uint32))
            self.emit(Opcode.VFMUL, rows=rows, cols=cols, **dest.fields("dest"), **a.fields("a"), value=value)
        elif kind == 2:
            dest = self.apart(rows, 1, a)
            opcode = self.rng.choice([Opcode.HADD, Opcode.HMUL, Opcode.HMAX])
            self.emit(Opcode(opcode), rows=rows, cols=cols, **dest.fields("dest", columns=False), **a.fields("src"))
        else:
            if self.rng.random() < 0.3:
                a = dest
            self.emit(
                Opcode(self.rng.choice(_BINARY)), rows=rows, cols=cols, **dest.fields("dest"), **a.fields("a"), **b.fields("b")
            )
        self.show(dest)

    def vectors(self, side: int, at: int, rows: int, width: int, slot: int) -> int:
        """Rows of quantized vectors to a buffer, by one of the ways there; returns the lines of a row."""
        columns = self.config.cols
        count = -(-width // columns)
        way = self.integer(0, 2)
        common = {"slot": slot, "rows": rows, "cols": width}
        if way == 0:
            self.emit(Opcode.QLOAD, side=side, dest=at, **common, **self.memory(rows, width).fields("src"))
        elif way == 1:
            self.emit(Opcode.QMOVE, side=side, dest=at, **common, **self.nbout(rows, width, alone=False).fields("src"))
        else:
            line, total = self.config.line_bytes, rows * count
            dest = line * self.integer(0, PROGRAM // line - total * slot - 1)
            tags = 2 * self.integer(0, PROGRAM // 2 - total)
            while tags + 2 * total > dest and tags < dest + total * slot * line:
                tags = 2 * self.integer(0, PROGRAM // 2 - total)
            self.emit(Opcode.QSTORE, dest=dest, dest_tags=tags, **common, **self.nbout(rows, width, alone=False).fields("src"))
            if self.rng.random() < 0.02:
                tags = 2 * self.integer(0, PROGRAM // 2 - total)  # most of what lies there is no tag
            self.emit(Opcode.VLOAD, side=side, slot=slot, vectors=total, dest=at, src=dest, src_tags=tags)
        return count * slot

    def crowd(self) -> None:
        """Loads, moves and transposes to one buffer, none of which waits for another but for its lane."""
        side, slot = self.integer(0, 1), max(self.least_slot.values())
        at, placed = 0, []
        for _ in range(self.integer(2, 5)):
            rows, width = self.integer(1, 8), self.integer(1, 2 * self.config.cols)
            lines = rows * self.vectors(side, at, rows, width, slot)
            placed.append((at, lines // slot))
            at += lines
        for where, vectors in placed:
            self._show_vectors(side, where, vectors, slot)

    def product(self) -> None:
        config = self.config
        least = max(self.least_slot.values())
        a_slot, w_slot = (least if self.rng.random() < 0.4 else self.integer(least, 4) for _ in range(2))
        # The shortest passes, too.
        rows, cols = (1 if self.rng.random() < 0.2 else self.integer(1, 20) for _ in range(2))
        width = self.integer(1, config.cols if self.rng.random() < 0.3 else min(4 * config.cols, 96))
        count = -(-width // config.cols)
        groups = [group for group in (1, 2, 4) if group * w_slot <= 4]
        a_at = self.integer(0, config.nbin_lines - 1 - rows * count * a_slot)
        w_at = self.integer(0, config.sb_lines - 1 - cols * count * w_slot)
        a_row = self.vectors(0, a_at, rows, width, a_slot)
        w_row = self.vectors(1, w_at, cols, width, w_slot)
        lanes = config.nbout_lanes
        pitch = -(-cols // lanes) * lanes + lanes * self.integer(0, 2)
        dest = _Grid(self.window + lanes * self.integer(0, (WINDOW - rows * pitch) // lanes), pitch, 1, rows, cols)
        common = {
            "accumulate": self.integer(0, 1),
            "group": int(self.rng.choice(groups)),
            "cols": cols,
            "dest": dest.at,
            "dest_row": pitch,
            "w": w_at,
            "w_row": w_row,
            "a": a_at,
            "a_slot": a_slot,
            "w_slot": w_slot,
        }
        if self.rng.random() < 0.6:
            self.emit(Opcode.MM, rows=rows, a_row=a_row, vectors=count, **common)
        else:
            self._windows(rows, count, a_row, dest, common)
        self.show(dest)
        if self.rng.random() < 0.3:
            self._transpose(0, a_at, rows, width, a_slot)
        if self.rng.random() < 0.2:
            side, slot = (0, a_slot) if self.rng.random() < 0.5 else (1, w_slot)
            at, total = (a_at, rows * count) if side == 0 else (w_at, cols * count)
            self._show_vectors(side, at, total, slot)

    def _transpose(self, src_side: int, at: int, rows: int, width: int, slot: int) -> None:
        """Some columns of a matrix in a buffer to any other place, and from there to memory."""
        across, down = -(-width // self.config.cols) * slot, -(-rows // self.config.cols) * slot
        cols, side = self.integer(1, min(width, 24)), self.integer(0, 1)
        lines = (self.config.nbin_lines, self.config.sb_lines)[side]
        dest = self.integer(0, lines - cols * down)
        while side == src_side and dest < at + rows * across and at < dest + cols * down:
            dest = self.integer(0, lines - cols * down)
        self.emit(
            Opcode.VTURN,
            side=side,
            src_side=src_side,
            slot=slot,
            rows=rows,
            cols=cols,
            dest=dest,
            dest_row=down,
            src=at,
            src_row=across,
        )
        self._show_vectors(side, dest, cols * down // slot, slot)

    def _show_vectors(self, side: int, at: int, vectors: int, slot: int) -> None:
        tags = 2 * self.integer(PROGRAM // 4, PROGRAM // 4 + 4096)
        self.emit(
            Opcode.VSTORE,
            side=side,
            slot=slot,
            vectors=vectors,
            src=at,
            dest=self.config.line_bytes * self.integer(0, 64),
            dest_tags=tags,
        )

    def _windows(self, rows: int, count: int, a_row: int, dest: _Grid, common: dict[str, int]) -> None:
        """The rows of a as pixels in a line, of a single image line; a window is one pixel high."""
        kernel = self.integer(1, max(1, min(rows, count)))
        if count % kernel:
            kernel = 1
        stride = self.integer(1, 2)
        windows = (rows - kernel) // stride + 1
        if kernel > 1:
            # Weights have `count` vectors a row: a window of `kernel` pixels takes count / kernel of each.
            common |= {"group": 1}
        dest.rows = windows
        self.emit(
            Opcode.CONV,
            rows=windows,
            a_row=a_row * rows,
            a_col=a_row,
            vectors=count // kernel,
            out_width=windows,
            stride=stride,
            kernel_rows=1,
            kernel_cols=kernel,
            **common,
        )

    def update(self) -> None:
        self.constants()
        rows, cols = self.shape(20)
        gap = 4 * cols + 4 * self.integer(0, 8)
        if self.config.dram is None:
            size = rows * gap
            w = 4 * self.integer(0, (PROGRAM // 3 - size) // 4)
            m, v = (PROGRAM // 3 // 4 * 4 * n + 4 * self.integer(0, (PROGRAM // 3 - size) // 4 - 1) for n in (1, 2))
        else:
            page, banks = 4 * self.config.dram.columns, self.config.dram.banks
            pages = rows * gap // page + 2
            first = 4 * self.integer(0, self.config.dram.columns - 1)
            around = -(-pages // banks) * banks
            if self.rng.random() < 0.95:
                start = self.integer(0, PROGRAM // page - 3 * around - banks)
                w, m, v = (first + page * (start + n * around + shift) for n, shift in enumerate((0, 2, 4)))
            else:
                w, m, v = (first + page * self.integer(0, PROGRAM // page - pages) for _ in range(3))
        self.emit(
            Opcode.WGSTORE, rows=rows, cols=cols, w=w, m=m, v=v, mem_row=gap, **self.nbout(rows, cols, alone=False).fields("src")
        )

    def spoil(self) -> None:
        """Change a field of an instruction, if that makes it fail or harms no order in which its parts are read and written."""
        number = self.integer(1, len(self.instructions) - 1)
        instruction = self.instructions[number]
        if not instruction.fields:
            return
        name = str(self.rng.choice(list(instruction.fields)))
        value = instruction.fields[name] ^ 1 << self.integer(0, max(1, instruction.fields[name].bit_length()))
        try:
            changed = Instruction.of(instruction.opcode, **instruction.fields | {name: value})
            decode(encode(changed))
        except ValueError:
            return
        moves = instruction.opcode.name[0] in "QSV" and instruction.opcode.name[1:] in ("LOAD", "STORE", "MOVE")
        operand = instruction.opcode in (Opcode.MM, Opcode.CONV) and name in (
            "a",
            "a_row",
            "w",
            "w_row",
            "a_slot",
            "w_slot",
            "group",
        )
        fails = check(changed.opcode.name, changed.fields, self.config, MEMORY_BYTES) != ErrorCode.NONE
        # Beyond the window NBout holds anything.
        known = all(
            self.window <= place.low and place.high <= self.window + WINDOW
            for place in ranges(changed.opcode.name, changed.fields, self.config)
            if place.space == Space.NBOUT
        )
        if fails or (moves and known) or operand:
            self.instructions[number] = changed

    def draw(self, length: int) -> bytes:
        self.window = WINDOW * self.integer(0, self.config.nbout_words // WINDOW - 1)
        self.narrow = bool(self.rng.random() < 0.2)
        row = 256
        self.emit(Opcode.SLOAD, rows=WINDOW // row, cols=row, dest=self.window, dest_row=row, dest_col=1, src_row=4 * row)
        for base in (Constant.SQU, Constant.MEMORY_SQU):
            self.settings(base)
        pieces = (
            self.stripes,
            self.arithmetic,
            self.arithmetic,
            self.product,
            self.product,
            self.crowd,
            self.update,
            self.settings,
        )
        for _ in range(length):
            pieces[self.integer(0, len(pieces) - 1)]()
            if self.unseen and self.rng.random() < 0.3:
                self.store(self.unseen.pop(0))
        for grid in self.unseen:
            self.store(grid)
        if self.rng.random() < 0.3:
            self.spoil()
        self.emit(Opcode.HALT)
        raw = bytearray(b"".join(map(encode, self.instructions)))
        if self.rng.random() < 0.05:
            at = INSTRUCTION_BYTES * self.integer(0, len(self.instructions) - 1)
            opcode, raw[at] = raw[at], raw[at] ^ 1 << self.integer(0, 7)
            if not self._refused(bytes(raw[at : at + INSTRUCTION_BYTES])):
                raw[at] = opcode
        return bytes(raw)

    def _refused(self, raw: bytes) -> bool:
        """Whether an instruction's opcode does not exist or does not go with its fields; another one may do anything, and read anything."""
        try:
            instruction = decode(raw)
        except ValueError:
            return True
        return check(instruction.opcode.name, instruction.fields, self.config, MEMORY_BYTES) != ErrorCode.NONE


class Pair(CheckedAccelerator):
    """Hardware and functional model for programs at `PROGRAM`."""

    def __init__(self, config: CambriconqConfig, *, seed: int = 0, stall: float = 0.0, waves: bool = False) -> None:
        options: dict[str, Any] = {"memory_size": MEMORY_BYTES, "timeout_cycles": 5_000_000}
        super().__init__(CambriconqAccelerator(config, seed=seed, stall=stall, waves=waves, **options))
        self.fill(np.random.default_rng(seed))

    def fill(self, rng: np.random.Generator) -> None:
        """Both as after a reset, memory with numbers of all kinds."""
        self.reset()
        count = MEMORY_BYTES // 4
        numbers = (rng.normal(size=count) * 2.0 ** rng.integers(-12, 6, count)).astype(np.float32)
        special = rng.integers(0, 1 << 32, count, dtype=np.uint32)
        self.write_memory(0, np.where(rng.random(count) < 0.02, special, numbers.view(np.uint32)).tobytes())

    def run_program(self, program: bytes) -> ErrorCode:
        """Both run it; raises `Mismatch` at the first difference. Returns why it ended."""
        self.write_memory(PROGRAM, program)
        try:
            self.run(PROGRAM)
        except ProgramError as error:
            return error.code
        return ErrorCode.NONE

    def executed(self) -> Counter[str]:
        """Instructions that the model has carried out since the last `fill`."""
        assert self.model and isinstance(self.model.transport, FunctionalTransport)
        return self.model.transport.machine.executed


def run_one(pair: Pair, seed: int, counts: Counter[str], listing: bool = False) -> ErrorCode:
    """One random program on both."""
    rng = np.random.default_rng(seed)
    pair.place = f"seed {seed}"
    pair.fill(rng)
    program = _Program(rng, pair.accelerator.config)
    raw = program.draw(program.integer(1, 8))
    if listing:
        for number, instruction in enumerate(program.instructions):
            print(f"{number:4} {instruction.opcode.name} {instruction.fields}", file=sys.stderr)
    ended = pair.run_program(raw)
    counts.update(pair.executed())
    return ended


def main(*, config: CambriconqConfig, count: int, seed: int, only: int | None, waves: bool) -> int:
    """``nibblecore regress --machine cambriconq``."""
    seeds = [only] if only is not None else range(seed, seed + count)
    counts, ends, cycles = Counter[str](), Counter[str](), 0
    # Machines with and without stalls take turns.
    for number, stall in enumerate(STALLS):
        part = [seed for seed in seeds if seed % len(STALLS) == number]
        if not part:
            continue
        with Pair(config, seed=part[0], stall=stall, waves=waves) as pair:
            for seed in tqdm(part, desc=f"stalls {stall:.0%}", unit="program", disable=None):
                try:
                    ends[run_one(pair, seed, counts, listing=only is not None).name] += 1
                except Exception as error:
                    again = f"nibblecore regress --machine cambriconq --config {config.name} --only {seed}"
                    print(f"{error}\nagain: {again}", file=sys.stderr)
                    return 1
            cycles += pair.counters()["cycles"]
    done = f"{sum(ends.values()):,} of {len(seeds):,} programs without a difference"
    print(f"{done}, seeds {seeds[0]}..{seeds[-1]}, config {config.name}; {cycles:,} cycles")
    print("ended with " + ", ".join(f"{name} {count:,}" for name, count in ends.most_common()))
    print("instructions " + ", ".join(f"{name} {count:,}" for name, count in counts.most_common()))
    return 0
