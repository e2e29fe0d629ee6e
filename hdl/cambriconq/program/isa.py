"""Cambricon-Q's instructions as one table: decoder, assembler, disassembler and docs/cambriconq-isa.md come from it.

``make docs`` writes the page.
"""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

__all__ = [
    "CONSTANTS",
    "INSTRUCTIONS",
    "INSTRUCTION_BYTES",
    "Constant",
    "Field",
    "Format",
    "Instruction",
    "Opcode",
    "Unary",
    "decode",
    "encode",
    "page",
]

INSTRUCTION_WORDS = 16
INSTRUCTION_BYTES = 4 * INSTRUCTION_WORDS


class Opcode(IntEnum):
    HALT = 0x01
    CROSET = 0x02
    SLOAD = 0x10
    SSTORE = 0x11
    VLOAD = 0x12
    VSTORE = 0x13
    QLOAD = 0x14
    QSTORE = 0x15
    QMOVE = 0x16
    WGSTORE = 0x17
    VTURN = 0x18
    MM = 0x20
    CONV = 0x21
    VADD = 0x30
    VSUB = 0x31
    VMUL = 0x32
    VMAX = 0x33
    VSTEP = 0x34
    VFMUL = 0x35
    VFUN = 0x36
    HADD = 0x38
    HMUL = 0x39
    HMAX = 0x3A


class Unary(IntEnum):
    """Functions of VFUN."""

    COPY = 0
    RELU = 1
    EXP = 2
    LOG = 3
    RECIPROCAL = 4
    RSQRT = 5
    SIGMOID = 6
    TANH = 7


class Constant(IntEnum):
    """Registers of CROSET, their bits in `CONSTANTS`. Those of the SQU beside the memory are 16 above those of the SQU in the core."""

    C1 = 0
    C2 = 1
    C3 = 2
    C4 = 3
    C5 = 4
    EPSILON = 5
    OPTIMIZER = 6
    SQU = 16
    SQU_CANDIDATE0 = 17
    SQU_CANDIDATE1 = 18
    SQU_CANDIDATE2 = 19
    SQU_CANDIDATE3 = 20
    MEMORY_SQU = 32
    MEMORY_SQU_CANDIDATE0 = 33
    MEMORY_SQU_CANDIDATE1 = 34
    MEMORY_SQU_CANDIDATE2 = 35
    MEMORY_SQU_CANDIDATE3 = 36


@dataclass(frozen=True)
class Field:
    """`width` bits at bit `low` of 32-bit word `word`. Bits of an instruction that no field covers are 0."""

    name: str
    word: int
    low: int
    width: int
    meaning: str
    choices: type[IntEnum] | None = None


def _bits(name: str, low: int, width: int, meaning: str) -> Field:
    return Field(name, 1, low, width, meaning)


_SQU = (
    _bits("count", 0, 2, "how many candidates are tried, less one"),
    _bits("metric", 2, 2, "error of a candidate: 0 Σ|x̃ − x′|, 1 |Σx̃ − Σx′|, 2 max|x̃ − x′|; 3 is refused"),
    _bits("bypass", 4, 1, "1: start from `exponent` instead of from the statistic"),
    _bits("exponent", 8, 8, "signed; with `bypass`, e_i of every candidate before its offset"),
)
_CANDIDATE = (
    _bits("size", 0, 2, "bits/4 − 1"),
    _bits("offset", 4, 4, "signed; added to the exponent"),
    _bits("clip", 16, 15, "largest |q|, at most Qmax = 2^(bits−1) − 1; more is refused"),
)
CONSTANTS: dict[Constant, tuple[Field, ...]] = {
    **{Constant(n): (_bits("number", 0, 32, "c1 to c5 and ε of the optimizer: FP32 numbers"),) for n in range(6)},
    Constant.OPTIMIZER: (_bits("use_m", 0, 1, "1: t1 = m, 0: t1 = g"), _bits("use_rsqrt", 1, 1, "1: t2 = rsqrt(v + ε), 0: t2 = 1")),
    Constant.SQU: _SQU,
    **{Constant[f"SQU_CANDIDATE{n}"]: _CANDIDATE for n in range(4)},
    Constant.MEMORY_SQU: _SQU,
    **{Constant[f"MEMORY_SQU_CANDIDATE{n}"]: _CANDIDATE for n in range(4)},
}
"""The bits of CROSET's `value`, register by register. In an SQU's all others are 0; in the optimizer's they do not matter."""


@dataclass(frozen=True)
class Format:
    """An instruction: its fields and what it does."""

    opcode: Opcode
    summary: str
    fields: tuple[Field, ...]


class Side(IntEnum):
    """The buffer of quantized operands that an instruction uses."""

    NBIN = 0
    SB = 1


def _flag(name: str, low: int, meaning: str) -> Field:
    return Field(name, 0, low, 1, meaning)


def _word(name: str, word: int, meaning: str) -> Field:
    return Field(name, word, 0, 32, meaning)


_SIDE = Field("side", 0, 8, 1, "the buffer", Side)
_SLOT = Field("slot", 0, 12, 3, "lines from one vector to the next, 1..4")
_SHAPE = (Field("rows", 1, 0, 16, "rows, at least 1"), Field("cols", 1, 16, 16, "columns, at least 1"))
_AT = "address"
_DEST, _SRC, _OTHER = 2, 5, 8


def _place(name: str, word: int, where: str, *, columns: bool = True) -> tuple[Field, ...]:
    """An address, the distance between rows, and that between columns."""
    fields = (_word(name, word, f"first element, {where}"), _word(f"{name}_row", word + 1, "distance of the rows"))
    return (*fields, _word(f"{name}_col", word + 2, "distance of the columns")) if columns else fields


def _nbout(name: str, word: int) -> tuple[Field, ...]:
    return _place(name, word, "in NBout, in FP32 words")


_BINARY = (*_SHAPE, *_nbout("dest", _DEST), *_nbout("a", _SRC), *_nbout("b", _OTHER))
_HORIZONTAL = (
    *_SHAPE,
    _word("dest", _DEST, "first element in NBout"),
    _word("dest_row", _DEST + 1, "distance of the rows"),
    *_nbout("src", _SRC),
)

_PRODUCT = (
    _flag("accumulate", 8, "add to what dest holds"),
    Field("group", 0, 12, 3, "vectors of one tag summed as integers: 1, 2 or 4; group · w_slot ≤ 4"),
    *_SHAPE,
    _word("dest", 2, "first word in NBout, a multiple of N/4"),
    _word("dest_row", 3, "words from one row to the next, a multiple of N/4"),
    _word("a", 4, "first line in NBin"),
    _word("w", 6, "first line in SB"),
    _word("w_row", 7, "lines from one row to the next"),
    Field("a_slot", 8, 0, 3, "lines from one vector of a to the next, 1..4"),
    Field("w_slot", 8, 4, 3, "the same for w"),
)

_FORMATS = (
    Format(Opcode.HALT, "end of the program", ()),
    Format(
        Opcode.CROSET,
        "set a constant of the optimizer or of an SQU",
        (Field("register", 0, 8, 8, "which", Constant), _word("value", 1, "see below")),
    ),
    Format(
        Opcode.SLOAD,
        "stripes of FP32 words from memory to NBout",
        (*_SHAPE, *_nbout("dest", _DEST), *_place("src", _SRC, "a byte address", columns=False)),
    ),
    Format(
        Opcode.SSTORE,
        "stripes of FP32 words from NBout to memory",
        (*_SHAPE, *_place("dest", _DEST, "a byte address", columns=False), *_nbout("src", _SRC)),
    ),
    Format(
        Opcode.VLOAD,
        "quantized vectors and their tags from memory to a buffer",
        (
            _SIDE,
            _SLOT,
            Field("vectors", 1, 0, 16, "how many"),
            _word("dest", 2, "first line"),
            _word("src", 3, "byte address of the lines"),
            _word("src_tags", 4, "byte address of the tags, 2 bytes a vector"),
        ),
    ),
    Format(
        Opcode.VSTORE,
        "quantized vectors and their tags from a buffer to memory",
        (
            _SIDE,
            _SLOT,
            Field("vectors", 1, 0, 16, "how many"),
            _word("src", 2, "first line"),
            _word("dest", 3, "byte address of the lines"),
            _word("dest_tags", 4, "byte address of the tags, 2 bytes a vector"),
        ),
    ),
    Format(
        Opcode.QLOAD,
        "FP32 rows from memory, quantized beside the memory, to a buffer",
        (_SIDE, _SLOT, *_SHAPE, _word("dest", _DEST, "first line"), *_place("src", _SRC, "a byte address")),
    ),
    Format(
        Opcode.QSTORE,
        "FP32 rows from NBout, quantized, to memory",
        (
            _SLOT,
            *_SHAPE,
            _word("dest", _DEST, "byte address of the lines"),
            _word("dest_tags", _DEST + 1, "byte address of the tags"),
            *_nbout("src", _SRC),
        ),
    ),
    Format(
        Opcode.QMOVE,
        "FP32 rows from NBout, quantized, to a buffer",
        (_SIDE, _SLOT, *_SHAPE, _word("dest", _DEST, "first line"), *_nbout("src", _SRC)),
    ),
    Format(
        Opcode.VTURN,
        "quantized vectors of a buffer, transposed, to another place; a new vector takes the greatest tag of its values",
        (
            _SIDE,
            Field("src_side", 0, 9, 1, "the buffer they come from", Side),
            _SLOT,
            *_SHAPE,
            _word("dest", _DEST, "first line"),
            _word("dest_row", _DEST + 1, "lines from one row to the next: it has `cols` rows"),
            _word("src", _SRC, "first line"),
            _word("src_row", _SRC + 1, "lines from one row to the next"),
        ),
    ),
    Format(
        Opcode.WGSTORE,
        "a gradient from NBout to the optimizer, which updates w, m and v in memory",
        (
            *_SHAPE,
            _word("w", 2, "byte address of the weights"),
            _word("m", 3, "byte address of m"),
            _word("v", 4, "byte address of v"),
            *_nbout("src", _SRC),
            _word("mem_row", 8, "distance of the rows of w, m and v, in bytes"),
        ),
    ),
    Format(
        Opcode.MM,
        "dest[i][j] = Σ a[i]·w[j], or dest + that: rows of NBin times rows of SB",
        (*_PRODUCT, _word("a_row", 5, "lines from one row to the next"), Field("vectors", 8, 16, 16, "vectors in a row")),
    ),
    Format(
        Opcode.CONV,
        "MM whose rows of a are the windows of an image in NBin",
        (
            *_PRODUCT,
            _word("a_row", 5, "lines from one pixel to the next below"),
            Field("vectors", 8, 16, 16, "vectors in a pixel"),
            _word("a_col", 9, "lines from one pixel to the next beside"),
            Field("out_width", 10, 0, 16, "windows in a line of the image"),
            Field("stride", 10, 16, 8, "pixels from one window to the next"),
            Field("kernel_rows", 11, 0, 8, "rows of a window"),
            Field("kernel_cols", 11, 8, 8, "columns of a window"),
        ),
    ),
    Format(Opcode.VADD, "dest = a + b", _BINARY),
    Format(Opcode.VSUB, "dest = a − b", _BINARY),
    Format(Opcode.VMUL, "dest = a · b", _BINARY),
    Format(Opcode.VMAX, "dest = max(a, b)", _BINARY),
    Format(Opcode.VSTEP, "dest = 1 where a ≥ b, else 0", _BINARY),
    Format(
        Opcode.VFMUL, "dest = a · value", (*_SHAPE, *_nbout("dest", _DEST), *_nbout("a", _SRC), _word("value", 8, "an FP32 number"))
    ),
    Format(
        Opcode.VFUN,
        "dest = function(a)",
        (Field("function", 0, 8, 4, "which", Unary), *_SHAPE, *_nbout("dest", _DEST), *_nbout("a", _SRC)),
    ),
    Format(Opcode.HADD, "dest[i] = Σ src[i][j], from the first column on", _HORIZONTAL),
    Format(Opcode.HMUL, "dest[i] = Π src[i][j], from the first column on", _HORIZONTAL),
    Format(Opcode.HMAX, "dest[i] = max over src[i]", _HORIZONTAL),
)
_PHASE = Field("phase", 0, 16, 3, "which of the phase counters counts its cycles")

INSTRUCTIONS: dict[Opcode, Format] = {
    f.opcode: f if f.opcode in (Opcode.HALT, Opcode.CROSET) else replace(f, fields=(_PHASE, *f.fields)) for f in _FORMATS
}


@dataclass(frozen=True)
class Instruction:
    """An opcode and the values of all its fields."""

    opcode: Opcode
    fields: dict[str, int]

    def __getattr__(self, name: str) -> int:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(f"{self.opcode.name} has no field {name!r}") from None

    @classmethod
    def of(cls, opcode: Opcode, **values: int) -> "Instruction":
        """Fields not given are 0. Raises ValueError for one that the instruction lacks or a value that does not fit."""
        form = INSTRUCTIONS[opcode]
        known = {field.name: field for field in form.fields}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"{opcode.name} has no field {name!r}; it has {', '.join(known)}")
            if not 0 <= value < 1 << known[name].width:
                raise ValueError(f"{opcode.name}: {name} has {known[name].width} bits; {value} does not fit")
        return cls(opcode, {name: int(values.get(name, 0)) for name in known})


def encode(instruction: Instruction) -> bytes:
    """The instruction's 64 bytes."""
    words = [0] * INSTRUCTION_WORDS
    words[0] = int(instruction.opcode)
    for field in INSTRUCTIONS[instruction.opcode].fields:
        words[field.word] |= instruction.fields[field.name] << field.low
    return struct.pack(f"<{INSTRUCTION_WORDS}I", *words)


def decode(raw: bytes) -> Instruction:
    """The inverse of `encode`. Raises ValueError for an opcode that does not exist or a bit that no field covers."""
    words = struct.unpack(f"<{INSTRUCTION_WORDS}I", raw)
    try:
        opcode = Opcode(words[0] & 0xFF)
    except ValueError:
        raise ValueError(f"no instruction has opcode {words[0] & 0xFF:#04x}") from None
    fields = {f.name: words[f.word] >> f.low & (1 << f.width) - 1 for f in INSTRUCTIONS[opcode].fields}
    instruction = Instruction(opcode, fields)
    if encode(instruction) != raw:
        raise ValueError(f"{opcode.name}: a reserved bit is set")
    for field in INSTRUCTIONS[opcode].fields:
        if field.choices is not None and fields[field.name] not in {int(choice) for choice in field.choices}:
            raise ValueError(f"{opcode.name}: {field.name} {fields[field.name]} does not exist")
    return instruction


def page() -> str:
    """docs/cambriconq-isa.md."""
    lines = [
        "# Cambricon-Q's instructions",
        "",
        "<!-- Generated by `make docs`; change the table, not this page. -->",
        "",
        "What the numbers mean is in [Cambricon-Q](cambriconq.md), where every row, vector and line of an operand lies in "
        "[Operands](cambriconq-operands.md); `make asm` and `make disasm` translate programs.",
        "",
        f"An instruction has {INSTRUCTION_WORDS} little-endian 32-bit words; bits 7..0 of word 0 are the opcode. Bits "
        "that no field covers must be 0. A place in memory or NBout is an address, a distance between rows and one between columns; "
        "a distance may be 0 (the same element again).",
        "",
    ]
    for form in INSTRUCTIONS.values():
        lines += [f"## {form.opcode.name} (0x{form.opcode:02X})", "", f"{form.summary}.", ""]
        if form.fields:
            lines += ["| word | bits | field | |", "| --- | --- | --- | --- |"]
            for f in sorted(form.fields, key=lambda f: (f.word, f.low)):
                bits = f"{f.low + f.width - 1}..{f.low}" if f.width > 1 else str(f.low)
                choices = f": {', '.join(f'{c.value} {c.name}' for c in f.choices)}" if f.choices else ""
                lines.append(f"| {f.word} | {bits} | `{f.name}` | {f.meaning}{choices} |")
            lines.append("")
        if form.opcode == Opcode.CROSET:
            lines += _constants()
    return "\n".join(lines)


def _constants() -> list[str]:
    """What CROSET's `value` means; registers with the same bits share their rows."""
    groups: dict[tuple[Field, ...], list[Constant]] = {}
    for register, fields in CONSTANTS.items():
        groups.setdefault(fields, []).append(register)
    lines = [
        "The bits of `value`. The SQU in the core quantizes for QMOVE and QSTORE, that beside the memory (`MEMORY_SQU`) for QLOAD.",
        "In their registers all bits that are not listed must be 0; in `OPTIMIZER` they do not matter. What the settings do is in",
        "[Numbers](cambriconq.md#numbers).",
        "",
        "| register | bits | | |",
        "| --- | --- | --- | --- |",
    ]
    for fields, registers in groups.items():
        names = ", ".join(f"`{register.name}`" for register in registers)
        for number, f in enumerate(sorted(fields, key=lambda f: f.low)):
            bits = f"{f.low + f.width - 1}..{f.low}" if f.width > 1 else str(f.low)
            meaning = f.meaning.replace("|", "\\|")
            lines.append(f"| {'' if number else names} | {bits} | `{f.name}` | {meaning} |")
    return [*lines, ""]
