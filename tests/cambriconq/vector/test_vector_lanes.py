"""The benches of the vector unit, where it takes elements together, and the rates at which it does."""

import bench
import cocotb
import pytest
from cambriconq.vector.test_vector_unit import WORDS, begin, bench_every_instruction, bench_reset_in_the_middle, execute, machine
from nibblecore.hdl.cambriconq.program.isa import Opcode, Unary

__all__ = ["bench_every_instruction", "bench_reset_in_the_middle"]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_groups(dut):
    """A group a cycle, one in two where two operands have a row of NBout each; what is no group is taken one by one."""
    lanes, rng = await begin(dut)
    group = bench.parameters()["group"]
    rows, cols = 4, 32 - group + 1
    steps, reads = rows * -(-cols // group), rows * 32 // lanes
    along = {"rows": rows, "cols": cols, "dest": 320, "dest_row": 32, "dest_col": 1, "a": 0, "a_row": 32, "a_col": 1}
    both = along | {"b": 128, "b_row": 32, "b_col": 1}
    one = both | {"b": 131, "b_row": 1, "b_col": 0}
    for opcode, fields, least in (
        (Opcode.VFMUL, along | {"value": 0x40400000}, steps),
        (Opcode.VFUN, along | {"function": int(Unary.RELU)}, steps),
        (Opcode.VFUN, along | {"function": int(Unary.COPY), "a_col": 0}, steps),
        (Opcode.VADD, both, max(steps, 2 * reads)),
        (Opcode.VSTEP, one, steps),
        (Opcode.VFUN, along | {"function": int(Unary.EXP)}, rows * cols),
        (Opcode.VMUL, both | {"dest": 321, "dest_row": 33}, rows * cols),
        (Opcode.VMUL, both | {"a_row": 33}, rows * cols),
    ):
        cycles = await execute(dut, machine(lanes, rng), lanes, opcode, fields)
        assert least <= cycles <= least * 1.3 + 26, f"{opcode.name} {fields}: {cycles} cycles"
    for rows in (1, group, 4 * group - 1, 5 * group):
        pitch = group * -(-rows // group)
        fields = {"rows": rows, "cols": 12, "dest": 352, "dest_row": 1, "src": group, "src_row": 1, "src_col": pitch}
        groups = -(-rows // group)
        least = 4 * 11 * (-(-groups // 4)) if groups % 4 else 12 * groups
        cycles = await execute(dut, machine(lanes, rng), lanes, Opcode.HADD, fields)
        assert least <= cycles <= least + 24, f"HADD of {rows} rows: {cycles} cycles"
        cycles = await execute(dut, machine(lanes, rng), lanes, Opcode.HADD, fields | {"dest_row": 2, "dest": 300})
        assert cycles >= min(rows, 4) * 11, f"HADD of {rows} rows, one by one: {cycles} cycles"


@pytest.mark.parametrize("lanes, group", [(8, 4), (2, 2), (8, 2)])
def test_vector_lanes(lanes, group):
    from nibblecore.hdl.cambriconq.vector.vector_unit import VectorUnit

    bench.run(
        VectorUnit(WORDS, lanes, group), __file__, f"vector_lanes_{lanes}_{group}", parameters={"lanes": lanes, "group": group}
    )


@pytest.mark.parametrize("group", [1, 3, 8])
def test_a_group_is_part_of_a_row(group):
    from nibblecore.hdl.cambriconq.vector.vector_lanes import VectorLanes

    with pytest.raises(ValueError, match=f"a group must be a power of two from 2 to 4 elements, not {group}"):
        VectorLanes(WORDS, 4, group)
