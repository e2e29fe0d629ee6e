"""How long a program takes, by the units' rates, and its listing with that beside every instruction."""

from collections.abc import Iterator
from typing import NamedTuple

from nibblecore.hdl.cambriconq.isa import INSTRUCTION_BYTES, Constant, Instruction, Opcode
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.asm import listing as source

from .program import Phase, Program

__all__ = ["Estimate", "estimates", "listing", "phases"]

# Cycles from one instruction to the next beside those of its fetch, and what a unit takes to begin and to end; as the Verilog of TINY does.
_CONTROL = 26
_CHECK_OF_A_PLACE = 3
_PIPELINE = {
    Opcode.SLOAD: 25, Opcode.SSTORE: 26, Opcode.VLOAD: 25, Opcode.VSTORE: 26, Opcode.QLOAD: 25, Opcode.QMOVE: 14, Opcode.QSTORE: 25,
    Opcode.WGSTORE: 63, Opcode.MM: 18, Opcode.CONV: 18, Opcode.VFUN: 19,
}  # fmt: skip
_VECTOR = 10
_SUM = 4
"""Cycles for which an element of a reduction waits for the one before."""
_FAR_WORD = 1.5
"""Cycles for a word read alone from memory, where those of a row are no neighbours."""
_BLOCK = 1024
_PLACES = ("dest", "src", "a", "b", "w", "m", "v")


class Estimate(NamedTuple):
    """Cycles of an instruction, its fetch included, and the phase they count for."""

    cycles: int
    phase: Phase


def estimates(program: Program, config: CambriconqConfig) -> Iterator[Estimate]:
    """In the order of the instructions. One candidate is taken to be tried for every block until CROSET says otherwise."""
    phase, candidates = Phase.OTHER, {Constant.SQU: 1, Constant.MEMORY_SQU: 1}
    fetch = -(-INSTRUCTION_BYTES // config.bus_bytes) + _CONTROL
    for instruction in program.instructions:
        fields = instruction.fields
        if instruction.opcode == Opcode.CROSET:
            if fields["register"] == Constant.PHASE:
                phase = Phase(fields["value"])
            elif fields["register"] in candidates:
                candidates[Constant(fields["register"])] = (fields["value"] & 3) + 1
        checks = _CHECK_OF_A_PLACE * sum(name in fields for name in _PLACES)
        squ = candidates[Constant.MEMORY_SQU if instruction.opcode == Opcode.QLOAD else Constant.SQU]
        yield Estimate(fetch + checks + _work(instruction, config, squ), phase)


def phases(program: Program, config: CambriconqConfig) -> dict[Phase, int]:
    """Cycles of each phase."""
    total = dict.fromkeys(Phase, 0)
    for cycles, phase in estimates(program, config):
        total[phase] += cycles
    return total


def listing(program: Program, config: CambriconqConfig) -> str:
    """A line for each instruction, index, cycles, phase and source, and the totals."""
    lines = ["# index  cycles  phase"]
    found = list(estimates(program, config))
    for number, (instruction, (cycles, phase)) in enumerate(zip(program.instructions, found, strict=True)):
        lines.append(f"{number:7} {cycles:7}  {phase.name:5}  {source(instruction)}")
    total = sum(cycles for cycles, _ in found)
    lines.append(f"# {len(found)} instructions, about {total:,} cycles; S, the statistic, is taken on the fly within Q")
    for phase, cycles in phases(program, config).items():
        lines.append(f"# {phase.name:5} {cycles:9,}  {cycles / max(total, 1):6.1%}")
    return "".join(f"{line}\n" for line in lines)


def _work(instruction: Instruction, config: CambriconqConfig, candidates: int) -> int:
    """Cycles in which a unit is at work."""
    opcode, f = instruction.opcode, instruction.fields
    if opcode in (Opcode.HALT, Opcode.CROSET):
        return 0
    rows, cols = f.get("rows", 1), f.get("cols", 1)
    start = _PIPELINE.get(opcode, _VECTOR)
    if opcode in (Opcode.MM, Opcode.CONV):
        return start + _product(instruction, config)
    if opcode in (Opcode.VLOAD, Opcode.VSTORE):
        return start + f["vectors"] * (f["slot"] + 1)
    if opcode in (Opcode.QLOAD, Opcode.QMOVE, Opcode.QSTORE):
        padded = -(-cols // config.cols) * config.cols
        words = cols * _FAR_WORD if f.get("src_col", 0) != 4 and opcode == Opcode.QLOAD else cols
        # A short block waits for the result buffers (Squ); the last one is seen whole before it leaves.
        return start + rows * max(padded * candidates, (padded + 8) // 2, int(words)) + 2 * min(padded, _BLOCK)
    if opcode == Opcode.WGSTORE:
        if config.dram is None:
            return start + rows * cols * max(1, 3 * 4 // config.bus_bytes)
        return start + rows * cols + (0 if f["mem_row"] == 4 * cols else (rows - 1) * start)
    if opcode in (Opcode.HADD, Opcode.HMUL, Opcode.HMAX):
        return start + rows * (_SUM * (cols - 1) + 1)
    return start + rows * cols * (2 if "b" in f else 1)


def _product(instruction: Instruction, config: CambriconqConfig) -> int:
    """Tiles of N columns by a group of vectors: passes of all rows, or the load of the next tile where that takes longer."""
    f = instruction.fields
    vectors, group = f["vectors"] * f.get("kernel_rows", 1) * f.get("kernel_cols", 1), f["group"]
    total = 0
    for number in range(-(-vectors // group)):
        size = min(group, vectors - number * group)
        compute = f["rows"] * max(4, size * f["a_slot"] * f["w_slot"])
        load = config.rows * size * f["w_slot"]
        total += max(compute, load) * -(-f["cols"] // config.rows) + (load if number == 0 else 0)
    return total
