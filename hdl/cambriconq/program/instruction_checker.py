"""Checks an instruction whole before anything is moved."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import CambriconqConfig

from .errors import ErrorCode
from .isa import INSTRUCTION_BYTES, INSTRUCTIONS, Constant, Format, Opcode, Side
from .job import InstructionFields, PlaceRange, Space, ranges_meet

__all__ = ["InstructionChecker"]

_FOUND = (ErrorCode.ILLEGAL_INSTRUCTION, ErrorCode.ZERO_SIZE, ErrorCode.MISALIGNED, ErrorCode.BAD_FORMAT)
"""What needs no arithmetic on places."""
_HORIZONTAL = (Opcode.HADD, Opcode.HMUL, Opcode.HMAX)


@dataclass
class _Range:
    """base + x1·y1 + x2·y2 + size must not exceed the limit: x of 16 bits, y of 32, size of 20."""

    name: str
    space: Any
    base: Any
    limit: Any
    size: Any = 0
    x1: Any = 0
    y1: Any = 0
    x2: Any = 0
    y2: Any = 0
    write: bool = False


class InstructionChecker(wiring.Component):
    """Takes ``start``, answers ``done`` with the lowest code that applies (docs/cambriconq.md), 0 if the instruction may run.

    One multiplier works out the last element of every place in turn.

    Latency: ``done`` 1 + 3·r cycles after ``start``, r the instruction's ranges, at most 4. Throughput: an instruction at a time; the next
    ``start`` the cycle after ``done`` at the earliest.

    Parameters
    ----------
    config : CambriconqConfig

    Attributes
    ----------
    conditions : dict of (Opcode, str) to ErrorCode
        What each instruction must not do, by names that the golden twin has too; known once the checker has been elaborated. Bits that no
        field covers and choices that do not exist are not among them.

    Members
    -------
    instruction : In(512)
        Constant from ``start`` to ``done``.
    memory_bytes : In(33)
        Addresses below it may be touched.
    start : In(1)
        Not from one start until its ``done``.
    done : Out(1)
        One cycle.
    code : Out(4)
        With ``done``.
    place_valid : Out(1)
        One cycle for each of the instruction's ranges, between ``start`` and ``done``.
    place : Out(PlaceRange)
        Nothing below ``low`` or from ``high`` on is touched; what is beyond its space has been cut off.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        self.conditions: dict[tuple[Opcode, str], ErrorCode] = {}
        super().__init__(
            {
                "instruction": In(8 * INSTRUCTION_BYTES),
                "memory_bytes": In(33),
                "start": In(1),
                "done": Out(1),
                "code": Out(4),
                "place_valid": Out(1),
                "place": Out(PlaceRange),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        opcode = self.instruction[:8]
        flags = {
            code: Signal(name=f"found{code}")
            for code in (ErrorCode.ILLEGAL_INSTRUCTION, ErrorCode.ZERO_SIZE, ErrorCode.MISALIGNED, ErrorCode.BAD_FORMAT)
        }
        beyond = {code: Signal(name=f"beyond{code}") for code in (ErrorCode.MEMORY_RANGE, ErrorCode.BUFFER_RANGE)}
        step = Signal(range(5))
        ranges = Signal(range(5))
        meets_itself = Signal()  # the last range, the one before
        base = Signal(32)
        limit = Signal(33)
        size = Signal(20)
        x1 = Signal(16)
        y1 = Signal(32)
        x2 = Signal(16)
        y2 = Signal(32)
        m.d.comb += flags[ErrorCode.ILLEGAL_INSTRUCTION].eq(1)
        with m.Switch(opcode):
            for form in INSTRUCTIONS.values():
                fields = InstructionFields(self.instruction, form.opcode)
                with m.Case(int(form.opcode)):
                    m.d.comb += flags[ErrorCode.ILLEGAL_INSTRUCTION].eq(self._illegal(form, fields))
                    for kind, condition in self._static(form.opcode, fields).items():
                        m.d.comb += flags[kind].eq(condition)
                    if form.opcode == Opcode.VTURN:
                        self.conditions[form.opcode, "meets itself"] = ErrorCode.BAD_FORMAT
                        with m.If(meets_itself):
                            m.d.comb += flags[ErrorCode.BAD_FORMAT].eq(1)
                    wanted = self._ranges(form.opcode, fields)
                    for r in wanted:
                        in_memory = r.space is Space.MEMORY
                        code = ErrorCode.MEMORY_RANGE if in_memory else ErrorCode.BUFFER_RANGE
                        self.conditions[form.opcode, f"{r.name} beyond"] = code
                    m.d.comb += ranges.eq(len(wanted))
                    with m.Switch(step):
                        for number, r in enumerate(wanted):
                            with m.Case(number):
                                m.d.comb += [
                                    base.eq(r.base),
                                    limit.eq(r.limit),
                                    size.eq(r.size),
                                    x1.eq(r.x1),
                                    y1.eq(r.y1),
                                    x2.eq(r.x2),
                                    y2.eq(r.y2),
                                    self.place.space.eq(r.space),
                                    self.place.write.eq(r.write),
                                ]

        before = Signal(PlaceRange)
        with m.If(self.place_valid):
            m.d.sync += before.eq(self.place)
            m.d.sync += meets_itself.eq((step != 0) & ranges_meet(before, self.place))

        product = Signal(48)
        total = Signal(50)
        end = Signal(50)
        m.d.comb += [end.eq(total + product), self.place.low.eq(base), self.place.high.eq(end)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [step.eq(0), [flag.eq(0) for flag in beyond.values()]]
                with m.If(self.start):
                    m.next = "FIRST"
            with m.State("FIRST"):
                m.d.sync += product.eq(x1 * y1)
                m.next = "SECOND"
                with m.If(step == ranges):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("SECOND"):
                m.d.sync += [total.eq(base + size + product), product.eq(x2 * y2)]
                m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.comb += self.place_valid.eq(1)
                with m.If(end > limit):
                    with m.If(self.place.space == Space.MEMORY):
                        m.d.sync += beyond[ErrorCode.MEMORY_RANGE].eq(1)
                    with m.Else():
                        m.d.sync += beyond[ErrorCode.BUFFER_RANGE].eq(1)
                m.d.sync += step.eq(step + 1)
                m.next = "FIRST"
        for kind, flag in sorted((flags | beyond).items(), reverse=True):
            with m.If(flag):
                m.d.comb += self.code.eq(kind)
        return m

    def _illegal(self, form: Format, f: InstructionFields) -> Value:
        """A bit that no field covers, or a choice that does not exist."""
        covered = 0xFF
        for field in form.fields:
            covered |= ((1 << field.width) - 1) << 32 * field.word + field.low
        reserved = self.instruction & Const(~covered & (1 << 8 * INSTRUCTION_BYTES) - 1, 8 * INSTRUCTION_BYTES)
        wrong = reserved.any()
        for field in form.fields:
            if field.choices is not None and len(field.choices) < 1 << field.width:
                wrong |= ~reduce(or_, (f[field.name] == int(choice) for choice in field.choices))
        return wrong

    def _static(self, opcode: Opcode, f: InstructionFields) -> dict[ErrorCode, Value]:
        """What needs no arithmetic on places."""
        found: dict[ErrorCode, Value] = {}
        line, lanes = self.config.line_bytes - 1, self.config.nbout_lanes - 1

        def refuse(code: ErrorCode, name: str, when: Value) -> None:
            found[code] = found[code] | when if code in found else when
            self.conditions[opcode, name] = code

        for name in ("rows", "cols", "vectors", "out_width", "stride", "kernel_rows", "kernel_cols"):
            if name in f:
                refuse(ErrorCode.ZERO_SIZE, f"{name} zero", f[name] == 0)
        for name in ("slot", "a_slot", "w_slot"):
            if name in f:
                refuse(ErrorCode.BAD_FORMAT, f"{name} zero", f[name] == 0)
        for name in ("slot", "a_slot"):
            if name in f:
                refuse(ErrorCode.BAD_FORMAT, f"{name} high", f[name] > 4)
        if opcode == Opcode.CROSET:
            register, value = f["register"], f["value"]
            settings = (register == Constant.SQU) | (register == Constant.MEMORY_SQU)
            candidate = (register > Constant.SQU) & ~settings
            clip_high = value[16:31] >> ((value[:2] << 2) + 3)[:4]
            refuse(ErrorCode.BAD_FORMAT, "settings reserved", settings & (value & Const(~0xFF1F & 0xFFFF_FFFF, 32)).any())
            refuse(ErrorCode.BAD_FORMAT, "metric high", settings & (value[2:4] == 3))
            refuse(ErrorCode.BAD_FORMAT, "candidate reserved", candidate & (value & Const(0x8000_FF0C, 32)).any())
            refuse(ErrorCode.BAD_FORMAT, "clip high", candidate & clip_high.any())
        memory_places = {
            Opcode.SLOAD: ("src", "src_row"),
            Opcode.SSTORE: ("dest", "dest_row"),
            Opcode.QLOAD: ("src", "src_row", "src_col"),
            Opcode.WGSTORE: ("w", "m", "v", "mem_row"),
        }
        for name in memory_places.get(opcode, ()):
            refuse(ErrorCode.MISALIGNED, f"{name} askew", f[name][:2].any())
        packed = {Opcode.VLOAD: "src", Opcode.VSTORE: "dest", Opcode.QSTORE: "dest"}
        if opcode in packed:
            place = packed[opcode]
            refuse(ErrorCode.MISALIGNED, f"{place} askew", (f[place] & line).any())
            refuse(ErrorCode.MISALIGNED, f"{place}_tags askew", f[f"{place}_tags"][0])
        if opcode in (Opcode.MM, Opcode.CONV):
            for name in ("dest", "dest_row"):
                refuse(ErrorCode.MISALIGNED, f"{name} askew", (f[name] & lanes).any())
            group = f["group"]
            refuse(ErrorCode.BAD_FORMAT, "group odd", ~((group == 1) | (group == 2) | (group == 4)))
            refuse(ErrorCode.BAD_FORMAT, "w_slot high", f["w_slot"] * group > 4)
        return {code: found.get(code, Const(0)) for code in _FOUND[1:]}

    def _ranges(self, opcode: Opcode, f: InstructionFields) -> list[_Range]:
        config = self.config
        rows, cols = f.get("rows"), f.get("cols")
        line_bits, col_bits = config.line_bytes.bit_length() - 1, config.cols.bit_length() - 1

        def nbout(place: str, col: Any = None, write: bool = False) -> _Range:
            return _Range(
                place,
                Space.NBOUT,
                f[place],
                config.nbout_words,
                size=1,
                x1=rows - 1,
                y1=f.get(f"{place}_row"),
                x2=cols - 1,
                y2=f.get(f"{place}_col") if col is None else col,
                write=write,
            )

        def memory(place: str, row: str, col: Any, write: bool = False) -> _Range:
            return _Range(
                place, Space.MEMORY, f[place], self.memory_bytes, size=4, x1=rows - 1, y1=f[row], x2=cols - 1, y2=col, write=write
            )

        def vectors_of(count: Value) -> Value:
            return (count + (config.cols - 1)) >> col_bits

        # The vectors of a row; VLOAD and VSTORE count vectors instead of rows.
        across = vectors_of(cols) if "rows" in f else Const(1)
        count = rows if "rows" in f else f.get("vectors")
        lines = across * f.get("slot")

        def buffer(side: str, place: str, *, write: bool = False, **extent: Any) -> _Range:
            limit = Const(config.nbin_lines, 33)
            if config.sb_lines != config.nbin_lines:
                limit = Mux(f[side] == Side.SB, Const(config.sb_lines, 33), limit)
            space = Mux(f[side] == Side.SB, Space.SB, Space.NBIN)
            return _Range(place, space, f[place], limit, write=write, **(extent or {"x1": count, "y1": lines}))

        def packed(place: str, write: bool = False) -> list[_Range]:
            return [
                _Range(name, Space.MEMORY, f[name], self.memory_bytes, x1=count, y1=distance, write=write)
                for name, distance in ((place, lines << line_bits), (f"{place}_tags", across << 1))
            ]

        def product() -> list[_Range]:
            """An image's lines are looked at when they are read; until then all of NBin counts as its."""
            kernel = f["kernel_rows"] * f["kernel_cols"] if "kernel_rows" in f else Const(1)
            image = _Range("a", Space.NBIN, f["a"], config.nbin_lines, x1=rows - 1, y1=f["a_row"], size=f["vectors"] * f["a_slot"])
            if opcode == Opcode.CONV:
                image = _Range("a", Space.NBIN, 0, config.nbin_lines, size=config.nbin_lines)
            weights = _Range(
                "w", Space.SB, f["w"], config.sb_lines, x1=cols - 1, y1=f["w_row"], x2=kernel, y2=f["vectors"] * f["w_slot"]
            )
            return [nbout("dest", col=1, write=True), image, weights]

        special: dict[Opcode, Callable[[], list[_Range]]] = {
            Opcode.HALT: lambda: [],
            Opcode.CROSET: lambda: [],
            Opcode.SLOAD: lambda: [nbout("dest", write=True), memory("src", "src_row", 4)],
            Opcode.SSTORE: lambda: [nbout("src"), memory("dest", "dest_row", 4, write=True)],
            Opcode.VLOAD: lambda: [buffer("side", "dest", write=True), *packed("src")],
            Opcode.VSTORE: lambda: [buffer("side", "src"), *packed("dest", write=True)],
            Opcode.QLOAD: lambda: [memory("src", "src_row", f["src_col"]), buffer("side", "dest", write=True)],
            Opcode.QMOVE: lambda: [nbout("src"), buffer("side", "dest", write=True)],
            Opcode.QSTORE: lambda: [nbout("src"), *packed("dest", write=True)],
            Opcode.VTURN: lambda: [
                buffer("src_side", "src", x1=rows - 1, y1=f["src_row"], size=lines),
                buffer("side", "dest", x1=cols - 1, y1=f["dest_row"], size=vectors_of(rows) * f["slot"], write=True),
            ],
            Opcode.WGSTORE: lambda: [nbout("src"), *(memory(name, "mem_row", 4, write=True) for name in ("w", "m", "v"))],
            Opcode.MM: product,
            Opcode.CONV: product,
        }
        if opcode in special:
            return special[opcode]()
        if opcode in _HORIZONTAL:
            return [nbout("dest", col=0, write=True), nbout("src")]
        return [nbout("dest", write=True), *(nbout(place) for place in ("a", "b") if place in f)]
