import random
import struct
from pathlib import Path

import numpy as np
import pytest
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, INSTRUCTIONS, Instruction, Opcode, Unary, decode, encode
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim import cli
from nibblecore.sim.compiler import asm
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator


def instructions(rng, count):
    """Random legal instructions of every kind."""
    for number in range(count):
        form = list(INSTRUCTIONS.values())[number % len(INSTRUCTIONS)]
        values = {f.name: int(rng.choice(list(f.choices))) if f.choices else rng.getrandbits(f.width) for f in form.fields}
        yield Instruction.of(form.opcode, **values)


def test_fields_of_an_instruction_do_not_overlap():
    for form in INSTRUCTIONS.values():
        covered = 0xFF
        for field in form.fields:
            assert field.low + field.width <= 32 and field.word < 16
            mask = ((1 << field.width) - 1) << 32 * field.word + field.low
            assert not covered & mask, f"{form.opcode.name}.{field.name}"
            covered |= mask


def test_binary_and_source_come_back():
    program = list(instructions(random.Random(1), 400))
    binary = b"".join(map(encode, program))
    assert [decode(binary[at : at + INSTRUCTION_BYTES]) for at in range(0, len(binary), INSTRUCTION_BYTES)] == program
    source = asm.disassemble(binary)
    assert len(source.splitlines()) == len(program)
    assert asm.assemble(source) == binary


def test_every_single_bit_is_either_a_field_or_refused():
    """Flipping any bit of an instruction makes it illegal or another instruction with that very binary."""
    for instruction in instructions(random.Random(2), len(INSTRUCTIONS)):
        raw = int.from_bytes(encode(instruction), "little")
        refused = 0
        for bit in range(8 * INSTRUCTION_BYTES):
            flipped = (raw ^ 1 << bit).to_bytes(INSTRUCTION_BYTES, "little")
            try:
                other = decode(flipped)
            except ValueError:
                refused += 1
                continue
            assert encode(other) == flipped and other != instruction
        assert refused >= 8 * INSTRUCTION_BYTES - sum(f.width for f in INSTRUCTIONS[instruction.opcode].fields) - 8


def test_values_as_people_write_them():
    binary = asm.assemble("# a comment\n\nVFUN function=TANH rows=0x10 cols=3 # and another\nVFMUL value=0.5f\n")
    first, second = decode(binary[:INSTRUCTION_BYTES]), decode(binary[INSTRUCTION_BYTES:])
    assert (first.opcode, first.function, first.rows, first.cols) == (Opcode.VFUN, Unary.TANH, 16, 3)
    assert struct.pack("<I", second.value) == struct.pack("<f", 0.5)


@pytest.mark.parametrize(
    "source, message",
    [
        ("HALT\nVOID", "line 2: there is no instruction 'VOID'"),
        ("MM size=3", "line 1: MM has no field 'size'"),
        ("MM rows=1 rows=2", "line 1: rows is given twice"),
        ("MM rows=65536", "line 1: MM: rows has 16 bits"),
        ("MM rows=-1", "line 1: MM: rows has 16 bits"),
        ("MM rows=many", "line 1: rows=many is no value of it"),
        ("VFUN function=SINE", "line 1: function=SINE is no value of it"),
        ("VFUN function", "line 1: VFUN has no field|line 1: function"),
    ],
)
def test_says_what_is_wrong_and_where(source, message):
    with pytest.raises(asm.AssemblyError, match=message):
        asm.assemble(source)


def test_command_line(tmp_path, capsys):
    source, binary = tmp_path / "p.s", tmp_path / "p.bin"
    source.write_text("HALT\n")
    assert cli.main(["asm", str(source)]) == 0
    assert binary.read_bytes() == encode(Instruction.of(Opcode.HALT))
    assert cli.main(["disasm", str(binary)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "HALT"
    source.write_text("HALT now\n")
    binary.unlink()
    assert cli.main(["asm", str(source)]) == 1
    assert "line 1" in capsys.readouterr().err and not binary.exists()
    binary.write_bytes(b"\x01" + bytes(62))
    assert cli.main(["disasm", str(binary)]) == 1
    assert "no whole number" in capsys.readouterr().err
    assert cli.main(["asm", str(tmp_path / "missing.s")]) == 1


def test_the_example_of_the_manual():
    """Runs, comments and all, and computes what it says."""
    source = (Path(__file__).resolve().parents[2] / "docs" / "softmax.s").read_text()
    accelerator = CambriconqAccelerator(CAMBRICONQ["tiny"], transport="functional", memory_size=1 << 14)
    x = np.random.default_rng(0).normal(0, 3, (4, 8)).astype(np.float32)
    accelerator.write_memory(0x1000, x.tobytes())
    accelerator.write_memory(0, asm.assemble(source))
    accelerator.run(0)
    found = np.frombuffer(accelerator.read_memory(0x2000, 128), np.float32).reshape(4, 8)
    exact = np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(axis=1, keepdims=True)
    assert found == pytest.approx(exact, rel=1e-5) and asm.assemble(asm.disassemble(asm.assemble(source))) == asm.assemble(source)
