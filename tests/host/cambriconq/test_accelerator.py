"""The driver, over the functional model and over the Verilog."""

import struct

import pytest
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.registers import REGISTERS
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.compiler.asm import assemble
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator, ProgramError
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.checked import Mismatch

TINY = CAMBRICONQ["tiny"]
MEMORY, PROGRAM = 1 << 16, 0x1000
COPY = """
SLOAD rows=1 cols=4 dest_row=4 dest_col=1 src=0x100
SSTORE phase=2 rows=1 cols=4 dest=0x200 src_row=4 src_col=1
"""
QUANTIZE = "QLOAD slot=2 rows=1 cols=4 src=0x100 src_col=4\nHALT\n"


@pytest.fixture(scope="module", params=["functional", "simulation"])
def accelerator(request):
    with CambriconqAccelerator(TINY, transport=request.param, memory_size=MEMORY) as accelerator:
        yield accelerator


def run(accelerator, source, entry=PROGRAM):
    accelerator.write_memory(PROGRAM, assemble(source))
    accelerator.run(entry)


def test_a_program_runs_and_counts(accelerator):
    accelerator.write_memory(0x100, bytes(range(16)))
    before = accelerator.counters()
    run(accelerator, COPY + "HALT\n")
    assert accelerator.read_memory(0x1FC, 24) == bytes(4) + bytes(range(16)) + bytes(4)
    passed = {name: count - before[name] for name, count in accelerator.counters().items()}
    assert passed["cycles"] == sum(passed[f"phase{n}"] for n in range(8)) and passed["array_cycles"] == 0
    assert (passed["phase2"] > 0) == (passed["cycles"] > 0) == (type(accelerator.transport).__name__ == "Simulation")


@pytest.mark.parametrize(
    "source, entry, code, index, message",
    [
        (
            COPY + "VSTORE slot=2 vectors=1 src=100 dest=0x300 dest_tags=0x400\nHALT\n",
            PROGRAM,
            ErrorCode.NO_TAG,
            2,
            r"^NO_TAG in instruction 2 of the program at 0x1000 \(VSTORE side=NBIN slot=2 vectors=1 .*dest=768.*\): "
            r"an operand that nothing has written; write whole vectors",
        ),
        (
            COPY,
            PROGRAM,
            ErrorCode.ILLEGAL_INSTRUCTION,
            2,
            r"instruction 2 of the program at 0x1000 \(.*\): no such opcode.*; end the",
        ),
        (
            "HALT\n",
            PROGRAM + 32,
            ErrorCode.MISALIGNED,
            0,
            r"MISALIGNED in instruction 0 .*\(0x1020 is no multiple of 64\): an addr",
        ),
        ("HALT\n", MEMORY, ErrorCode.MEMORY_RANGE, 0, r"MEMORY_RANGE in instruction 0 .*\(at 0x10000, beyond memory\): beyond MEM"),
    ],
)
def test_an_error_says_what_where_and_what_to_do(accelerator, source, entry, code, index, message):
    accelerator.write_memory(PROGRAM, bytes(256))
    with pytest.raises(ProgramError, match=message) as info:
        run(accelerator, source, entry)
    assert (info.value.code, info.value.index) == (code, index) and index <= info.value.started <= index + 1
    run(accelerator, COPY + "HALT\n")


def test_flags_stay_until_they_are_cleared(accelerator):
    for number, flags in ((float("nan"), (1, 0)), (float("inf"), (1, 1))):
        accelerator.write_memory(0x100, struct.pack("<4f", 1, number, 2, 3))
        run(accelerator, QUANTIZE)
        assert (accelerator.flags()["nan"], accelerator.flags()["infinity"]) == flags
    accelerator.clear_flags()
    assert not any(accelerator.flags().values())


def test_memory_ends_where_the_register_says(accelerator):
    accelerator.transport.write_register(REGISTERS["MEMORY_LAST"].offset, 0x1FF)
    with pytest.raises(ProgramError, match="MEMORY_RANGE in instruction 0"):
        accelerator.run(PROGRAM)
    accelerator.write_memory(0, assemble(COPY + "HALT\n"))
    with pytest.raises(ProgramError, match="MEMORY_RANGE in instruction 1"):
        accelerator.run(0)
    accelerator.reset()
    accelerator.run(0)


@pytest.fixture
def checked():
    checked = CheckedAccelerator(CambriconqAccelerator(TINY, transport="functional", memory_size=MEMORY))
    checked.write_memory(PROGRAM, assemble(QUANTIZE))
    checked.place = "step 7"
    return checked


def test_flags_are_compared(checked):
    checked.run(PROGRAM)
    checked.model.transport.machine.nan_seen = True
    with pytest.raises(Mismatch, match=r"^step 7: the flag nan is 0, expected 1$"):
        checked.run(PROGRAM)


def test_an_end_at_another_instruction_is_a_difference(checked):
    """The model finds the end of its memory earlier."""
    checked.write_memory(PROGRAM, assemble("SLOAD rows=1 cols=1 dest_row=1 dest_col=1 src=0xFFFC\nHALT\n"))
    checked.run(PROGRAM)
    checked.model.transport.write_register(REGISTERS["MEMORY_LAST"].offset, MEMORY - 65)
    with pytest.raises(
        Mismatch, match=r"^step 7: the program's end is HALT, expected MEMORY_RANGE in instruction 0 of .* \(SLOAD "
    ):
        checked.run(PROGRAM)


def test_what_else_had_been_started_is_compared(checked):
    """An accelerator that has started the store behind a refused instruction."""
    refused = "VSTORE slot=2 vectors=1 src=100 dest=0x300 dest_tags=0x400\n"
    checked.write_memory(0x100, bytes(range(1, 17)))
    checked.write_memory(PROGRAM, assemble(refused + COPY + "HALT\n"))
    with pytest.raises(ProgramError, match="NO_TAG in instruction 0"):
        checked.run(PROGRAM)
    plain = checked.accelerator.transport._run

    def ahead(entry):
        plain(entry)
        checked.accelerator.transport.run_on(entry, 3)
        checked.accelerator.transport._registers["STARTED"] = 3

    checked.accelerator.transport._run = ahead
    with pytest.raises(ProgramError, match="NO_TAG in instruction 0"):
        checked.run(PROGRAM)
    assert checked.model.read_memory(0x200, 16) == bytes(range(1, 17))


def test_without_check_there_is_no_model(checked):
    alone = CheckedAccelerator(checked.accelerator, check=False)
    alone.run(PROGRAM)
    assert alone.model is None and alone.comparisons == 0
