"""The C headers compile as C99 and C++ without a warning, all of them in one program, and say what the tables say."""

import re
import subprocess
from typing import Any

import pytest
from nibblecore.hdl.bus.register_map import Access
from nibblecore.hdl.cambriconq import registers as cambriconq_registers
from nibblecore.hdl.cambriconq.program import errors as cambriconq_errors
from nibblecore.hdl.cambriconq.program import isa
from nibblecore.hdl.config import CAMBRICONQ, PAPER, TINY
from nibblecore.hdl.ltoaq import registers as ltoaq_registers
from nibblecore.hdl.ltoaq.command import descriptor
from nibblecore.hdl.ltoaq.command import errors as ltoaq_errors
from nibblecore.sim.export.c_header import c_header

HEADERS: dict[str, Any] = {
    "ltoaq_tiny": TINY,
    "soc_ltoaq_paper": PAPER,
    "cambriconq_tiny": CAMBRICONQ["tiny"],
    "cambriconq_tiny_bus": CAMBRICONQ["tiny_bus"],
}


def registers_of(prefix, module, codes):
    """What the macros of registers and errors must be."""
    values = {f"{prefix}_ID_VALUE": module.ID, **{f"{prefix}_ERROR_{code.name}": code.value for code in codes}}
    for register in module.REGISTERS:
        name = f"{prefix}_{register.name}"
        values[f"{name}_OFFSET"] = register.offset
        if register.access in (Access.RW, Access.RW1C):
            values[f"{name}_RESET"] = register.reset
        for field in register.fields:
            values[f"{name}_{field.name.upper()}_SHIFT"] = field.low
            values[f"{name}_{field.name.upper()}_MASK"] = field.insert((1 << field.width) - 1)
    return values


def bits_of(name, field, *, word=True):
    values = {f"{name}_SHIFT": field.low, f"{name}_MASK": sum(1 << bit for bit in range(field.low, field.low + field.width))}
    return {**values, f"{name}_WORD": field.word} if word else values


def ltoaq():
    values = registers_of("LTOAQ", ltoaq_registers, ltoaq_errors.ErrorCode)
    values |= {"LTOAQ_DESCRIPTOR_BYTES": 128, "LTOAQ_DESCRIPTOR_WORDS": 32, "LTOAQ_HEADER_BYTES": 32}
    values |= {f"LTOAQ_OPCODE_{code.name}": code.value for code in descriptor.Opcode}
    for field in descriptor.FIELDS:
        values |= bits_of(f"LTOAQ_DESCRIPTOR_{field.name.upper()}", field)
    return values


def cambriconq():
    values = registers_of("CAMBRICONQ", cambriconq_registers, cambriconq_errors.ErrorCode)
    values |= {"CAMBRICONQ_INSTRUCTION_BYTES": 64, "CAMBRICONQ_INSTRUCTION_WORDS": 16}
    for opcode in isa.Opcode:
        values[f"CAMBRICONQ_OPCODE_{opcode.name}"] = opcode.value
        for field in isa.INSTRUCTIONS[opcode].fields:
            values |= bits_of(f"CAMBRICONQ_{opcode.name}_{field.name.upper()}", field)
    for enum in (isa.Constant, isa.Unary, isa.Side):
        values |= {f"CAMBRICONQ_{enum.__name__.upper()}_{choice.name}": choice.value for choice in enum}
    for register, fields in isa.CONSTANTS.items():
        for field in fields:
            values |= bits_of(f"CAMBRICONQ_{register.name}_{field.name.upper()}", field, word=False)
    return values


def expected():
    values = ltoaq() | cambriconq()
    for name, config in HEADERS.items():
        module = ltoaq_registers if "ltoaq" in name else cambriconq_registers
        words = module.config_words(config)
        own = {"CONFIG0": words[0], "CONFIG1": words[1], "BUS_BYTES": config.bus_bytes}
        values |= {f"{name.upper()}_{key}": value for key, value in own.items()}
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("headers")
    for name, config in HEADERS.items():
        (folder / f"{name}.h").write_text(c_header(config, name), encoding="utf-8")
    return folder


def test_the_tables_are_all_there(folder):
    """The macros are those that the tables give names to, and no others: the program below checks every one."""
    text = "".join((folder / f"{name}.h").read_text(encoding="utf-8") for name in HEADERS)
    defined = {name for name in re.findall(r"^#define (\w+) ", text, re.M) if not name.startswith("NIBBLECORE_")}
    assert defined == expected().keys()
    for code in (*ltoaq_errors.ErrorCode, *cambriconq_errors.ErrorCode):
        assert re.search(rf"_ERROR_{code.name} {int(code)}u /\* {re.escape(code.cause)} \*/$", text, re.M)


@pytest.mark.parametrize("machine, codes", [("LTOAQ", ltoaq_errors.ErrorCode), ("CAMBRICONQ", cambriconq_errors.ErrorCode)])
def test_causes(folder, machine, codes):
    """The list of all error codes expands to what the tables say."""
    source = folder / f"causes_{machine}.c"
    name = "ltoaq_tiny" if machine == "LTOAQ" else "cambriconq_tiny"
    one = f'#define ONE(name, cause) printf("%u " #name " %s\\n", {machine}_ERROR_##name, cause);'
    source.write_text(f'#include <stdio.h>\n#include "{name}.h"\n{one}\nint main(void) {{ {machine}_ERRORS(ONE) return 0; }}\n')
    program = source.with_suffix("")
    subprocess.run(["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", program, source], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert printed == "".join(f"{int(code)} {code.name} {code.cause}\n" for code in codes)


@pytest.mark.parametrize("compiler", [("gcc", "-std=c99"), ("g++", "-std=c++11")], ids=["C99", "C++11"])
def test_values(folder, compiler):
    values = expected()
    source = folder / ("values.c" if compiler[0] == "gcc" else "values.cpp")
    lines = [f'  printf("%s %lu\\n", "{name}", (unsigned long){name});' for name in values]
    includes = [f'#include "{name}.h"' for name in (*HEADERS, "ltoaq_tiny")]
    source.write_text("\n".join(["#include <stdio.h>", *includes, "int main(void) {", *lines, "  return 0;", "}", ""]))
    program = source.with_suffix("")
    subprocess.run([*compiler, "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", program, source], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert {name: int(value) for name, value in map(str.split, printed.splitlines())} == values


def test_a_descriptor_from_the_macros_is_the_packed_one():
    """Word, shift and mask are used as the page says: ``words[X_WORD] |= value << X_SHIFT & X_MASK``."""
    values, words = ltoaq(), [0] * 32
    chosen = {"opcode": 1, "relu": 1, "m": 40, "a_threshold": 7, "alpha": 0x12345678, "shift": 39, "k_tiles": 3}
    for name, value in chosen.items():
        macro = f"LTOAQ_DESCRIPTOR_{name.upper()}"
        words[values[f"{macro}_WORD"]] |= value << values[f"{macro}_SHIFT"] & values[f"{macro}_MASK"]
    assert b"".join(word.to_bytes(4, "little") for word in words) == descriptor.pack(**chosen)
