"""A machine's registers, instructions or descriptors, and error codes as a C header, from the tables that the hardware is built from."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from nibblecore.hdl.bus.register_map import Access, RegisterMap
from nibblecore.hdl.cambriconq import registers as cambriconq_registers
from nibblecore.hdl.cambriconq.program import errors as cambriconq_errors
from nibblecore.hdl.cambriconq.program import isa
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.hdl.ltoaq import registers as ltoaq_registers
from nibblecore.hdl.ltoaq.command import descriptor
from nibblecore.hdl.ltoaq.command import errors as ltoaq_errors
from nibblecore.sim.machines import Config, machine_of

from .origin import origin

__all__ = ["c_header"]

_Line = str | tuple[str, int, str]
"""A comment, or a macro: its name without the machine's, its value, a comment."""


def c_header(config: Config, name: str) -> str:
    """``<name>.h``, for C99 and C++.

    All macros are constants of type unsigned and begin with ``LTOAQ_`` or ``CAMBRICONQ_``; those that depend on the configuration
    begin with `name`, so that one program can include the headers of several machines.
    """
    machine = machine_of(config)
    if isinstance(config, CambriconqConfig):
        lines = [*_registers(cambriconq_registers.REGISTERS, cambriconq_registers.ID), *_instructions()]
        words = cambriconq_registers.config_words(config)
        codes: Iterable[Any] = cambriconq_errors.ErrorCode
    else:
        lines = [*_registers(ltoaq_registers.REGISTERS, ltoaq_registers.ID), *_descriptors()]
        words = ltoaq_registers.config_words(config)
        codes = ltoaq_errors.ErrorCode
    lines += ["Error codes, as ERROR.code gives them"]
    lines += [(f"ERROR_{code.name}", int(code), code.cause) for code in codes]
    own: list[_Line] = ["What the machine of this configuration answers"]
    own += [(f"CONFIG{n}", word, f"value of register CONFIG{n}") for n, word in enumerate(words)]
    own += [("BUS_BYTES", config.bus_bytes, "width of the data bus")]
    causes = [(code.name, code.cause) for code in codes]
    words_of = "descriptors" if machine == "ltoaq" else "instructions"
    head = origin(config, f"{name}.h", f"registers, {words_of} and error codes for C")
    text = ["/* " + head[0] + " */", "/*", *(f" * {line}" for line in head[1:]), " */"]
    text += _guarded(f"NIBBLECORE_{machine.upper()}_H", machine.upper(), lines, causes)
    text += _guarded(f"NIBBLECORE_{name.upper()}_H", name.upper(), own)
    return "\n".join(text) + "\n"


def _guarded(guard: str, prefix: str, lines: list[_Line], causes: Iterable[tuple[str, str]] = ()) -> Iterator[str]:
    yield from ("", f"#ifndef {guard}", f"#define {guard}")
    macros = [line for line in lines if not isinstance(line, str)]
    names = {macro[0] for macro in macros}
    if len(names) != len(macros):
        raise ValueError(f"{prefix}: two macros have one name")
    for line in lines:
        if isinstance(line, str):
            yield from ("", *(f"/* {part} */" for part in textwrap.wrap(line, 110)))
        else:
            name, value, comment = line
            text = (
                f"{value}u"
                if name.endswith(("_SHIFT", "_WORD", "_WORDS", "_BYTES")) or name.startswith("ERROR_")
                else f"0x{value:x}u"
            )
            yield f"#define {prefix}_{name} {text}" + (f" /* {comment} */" if comment else "")
    if causes:
        yield from ("", "/* All error codes: X(name, cause) of each */", f"#define {prefix}_ERRORS(X)" + " \\")
        yield " \\\n".join(f'    X({name}, "{cause}")' for name, cause in causes)
    yield from ("", f"#endif /* {guard} */")


def _bits(name: str, low: int, width: int, comment: str) -> Iterator[_Line]:
    yield (f"{name}_SHIFT", low, comment)
    yield (f"{name}_MASK", ((1 << width) - 1) << low, "")


def _registers(registers: RegisterMap, identity: int) -> Iterator[_Line]:
    yield f"Registers of {registers.name}: byte offsets, and shift and mask of every field in its 32-bit word"
    yield ("ID_VALUE", identity, "what ID reads as")
    for register in registers:
        yield f"{register.name}, {register.access.value}: {register.description}"
        yield (f"{register.name}_OFFSET", register.offset, "")
        if register.access in (Access.RW, Access.RW1C):
            yield (f"{register.name}_RESET", register.reset, "")
        for field in register.fields:
            yield from _bits(f"{register.name}_{field.name.upper()}", field.low, field.width, field.description)


def _descriptors() -> Iterator[_Line]:
    yield "Descriptors: little-endian 32-bit words; of every field the word, and shift and mask in it. All other bits are 0"
    yield ("DESCRIPTOR_BYTES", descriptor.DESCRIPTOR_BYTES, "a descriptor's address is a multiple of HEADER_BYTES")
    yield ("DESCRIPTOR_WORDS", descriptor.DESCRIPTOR_WORDS, "")
    yield ("HEADER_BYTES", descriptor.HEADER_BYTES, "of a tensor's header")
    yield from ((f"OPCODE_{code.name}", int(code), "") for code in descriptor.Opcode)
    for field in descriptor.FIELDS:
        name = f"DESCRIPTOR_{field.name.upper()}"
        yield (f"{name}_WORD", field.word, "")
        yield from _bits(name, field.low, field.width, "")


def _instructions() -> Iterator[_Line]:
    yield "Instructions: little-endian 32-bit words, bits 7..0 of word 0 the opcode; of every field the word, and shift and mask in it"
    yield ("INSTRUCTION_BYTES", isa.INSTRUCTION_BYTES, "a program's address is a multiple of it")
    yield ("INSTRUCTION_WORDS", isa.INSTRUCTION_WORDS, "")
    for form in isa.INSTRUCTIONS.values():
        yield f"{form.opcode.name}: {form.summary}"
        yield (f"OPCODE_{form.opcode.name}", int(form.opcode), "")
        for field in sorted(form.fields, key=lambda field: (field.word, field.low)):
            name = f"{form.opcode.name}_{field.name.upper()}"
            yield (f"{name}_WORD", field.word, "")
            yield from _bits(name, field.low, field.width, field.meaning)
    choices = {field.choices: None for form in isa.INSTRUCTIONS.values() for field in form.fields if field.choices}
    for enum in choices:
        yield f"Values of a field: {enum.__name__}"
        yield from ((f"{enum.__name__.upper()}_{choice.name}", int(choice), "") for choice in enum)
    for register, fields in isa.CONSTANTS.items():
        yield f"Bits of CROSET's value for register {register.name}"
        for field in fields:
            yield from _bits(f"{register.name}_{field.name.upper()}", field.low, field.width, field.meaning)
