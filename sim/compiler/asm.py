"""Assembler and disassembler of Cambricon-Q's programs.

    nibblecore asm program.s -o program.bin
    nibblecore disasm program.bin

A line holds an instruction and its fields, ``MM rows=32 cols=48 dest=0 …``, in any order; fields left out are 0. Values are
decimal, 0x…, a name of the field's choices (``function=EXP``) or, for any 32-bit field, an FP32 number such as ``value=0.5f``.
``#`` begins a comment.
"""

import struct
import sys
from pathlib import Path

from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, INSTRUCTIONS, Field, Instruction, Opcode, decode, encode
from nibblecore.sim import outputs
from nibblecore.sim.refusal import Refusal

__all__ = ["AssemblyError", "assemble", "assemble_file", "disassemble", "disassemble_file", "listing"]


class AssemblyError(ValueError):
    """A program that cannot be assembled or disassembled; says where."""


def _value(field: Field, text: str) -> int:
    if field.choices is not None and text in field.choices.__members__:
        return int(field.choices[text])
    if field.width == 32 and text.endswith("f") and not text.startswith("0x"):
        return int(struct.unpack("<I", struct.pack("<f", float(text[:-1])))[0])
    return int(text, 0)


def _instruction(text: str) -> Instruction:
    name, *fields = text.split()
    if name not in Opcode.__members__:
        raise AssemblyError(f"there is no instruction {name!r}")
    opcode = Opcode[name]
    known = {field.name: field for field in INSTRUCTIONS[opcode].fields}
    values: dict[str, int] = {}
    for item in fields:
        key, equals, value = item.partition("=")
        if not equals or key not in known:
            raise AssemblyError(f"{name} has no field {key!r}; it has {', '.join(known) or 'none'}")
        if key in values:
            raise AssemblyError(f"{key} is given twice")
        try:
            values[key] = _value(known[key], value)
        except (ValueError, OverflowError):
            raise AssemblyError(f"{key}={value} is no value of it") from None
    try:
        return Instruction.of(opcode, **values)
    except ValueError as error:
        raise AssemblyError(str(error)) from None


def assemble(source: str) -> bytes:
    """The binary of a program. Raises AssemblyError with the number of the line."""
    binary = b""
    for number, line in enumerate(source.splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                binary += encode(_instruction(text))
            except AssemblyError as error:
                raise AssemblyError(f"line {number}: {error}") from None
    return binary


def disassemble(binary: bytes) -> str:
    """Source that assembles to `binary`, fields of 0 left out. Raises AssemblyError with the instruction's index."""
    if len(binary) % INSTRUCTION_BYTES:
        raise AssemblyError(f"{len(binary)} bytes are no whole number of instructions of {INSTRUCTION_BYTES}")
    lines = []
    for at in range(0, len(binary), INSTRUCTION_BYTES):
        try:
            instruction = decode(binary[at : at + INSTRUCTION_BYTES])
        except ValueError as error:
            raise AssemblyError(f"instruction {at // INSTRUCTION_BYTES}: {error}") from None
        lines.append(listing(instruction))
    return "".join(f"{line}\n" for line in lines)


def listing(instruction: Instruction) -> str:
    """One line of source."""
    words = [instruction.opcode.name]
    for field in INSTRUCTIONS[instruction.opcode].fields:
        value = instruction.fields[field.name]
        if field.choices is not None:
            words.append(f"{field.name}={field.choices(value).name}")
        elif value:
            words.append(f"{field.name}={value:#x}" if value > 0xFFFF else f"{field.name}={value}")
    return " ".join(words)


def assemble_file(*, file: Path, output: Path | None) -> int:
    """``nibblecore asm``."""
    try:
        binary = assemble(file.read_text())
    except (AssemblyError, UnicodeDecodeError) as error:
        return _failed(file, error)
    target = output or file.with_suffix(".bin")
    if target.exists() and target.samefile(file):
        raise Refusal("output" if output else "file", "is source and binary in one; name another binary with OUTPUT= or --output")
    outputs.write(target, binary)
    print(f"{target}: {len(binary) // INSTRUCTION_BYTES} instructions, {len(binary)} bytes")
    return 0


def disassemble_file(*, file: Path, output: Path | None) -> int:
    """``nibblecore disasm``."""
    try:
        text = disassemble(file.read_bytes())
    except AssemblyError as error:
        return _failed(file, error)
    if output:
        outputs.write(output, text.encode())
    else:
        print(text, end="")
    return 0


def _failed(file: Path, error: ValueError) -> int:
    reason = "is no text" if isinstance(error, UnicodeDecodeError) else error
    print(f"{file}: {reason}", file=sys.stderr)
    return 1
