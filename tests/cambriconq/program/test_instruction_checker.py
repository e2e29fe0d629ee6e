import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.program import isa
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTIONS, Constant, Instruction, Opcode
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.golden.cambriconq.program.instruction_checker import check

MEMORY = (3 << 20) + 24


def legal(rng, form, config):
    """Small values with a good chance to be in order: alignment, slots and settings right, places near the start of their space."""
    values = {}
    lane = config.nbout_lanes
    for field in form.fields:
        name = field.name
        if field.choices is not None:
            value = int(rng.choice(list(field.choices)))
        elif name in ("rows", "cols", "vectors", "out_width", "stride", "kernel_rows", "kernel_cols"):
            value = rng.choice((1, 2, rng.randint(1, 40), 255))
        elif name in ("slot", "a_slot", "w_slot"):
            value = rng.randint(1, 4)
        elif name == "group":
            value = rng.choice((1, 2, 4))
        else:
            value = rng.choice((0, rng.randint(0, 300), rng.randint(0, 3 * 2**15))) // 64 * 64
        values[name] = value & (1 << field.width) - 1
    if form.opcode in (Opcode.MM, Opcode.CONV):
        values["w_slot"] = rng.randint(1, 4 // values["group"])
        values["dest"], values["dest_row"] = values["dest"] // lane * lane, values["dest_row"] // lane * lane
    if form.opcode == Opcode.CROSET:
        size = rng.randrange(4)
        if values["register"] in (Constant.SQU, Constant.MEMORY_SQU):
            values["value"] = rng.randrange(4) | rng.randrange(3) << 2 | rng.getrandbits(1) << 4 | rng.getrandbits(8) << 8
        elif values["register"] > Constant.SQU:
            values["value"] = size | rng.getrandbits(4) << 4 | rng.getrandbits(4 * size + 3) << 16
        else:
            values["value"] = rng.getrandbits(32)
    return values


def at_the_edge(rng, form, values, config):
    """Moves one place so that its last element is the last of its space, or up to two beyond."""
    places = [f.name for f in form.fields if f.name in ("dest", "src", "a", "b", "w", "m", "v", "dest_tags", "src_tags")]
    name = rng.choice(places)
    low, high = 0, 2**32 - 1
    while low < high:  # the largest address that is in order
        middle = (low + high + 1) // 2
        fine = check(form.opcode.name, {**values, name: middle // 64 * 64}, config, MEMORY) == ErrorCode.NONE
        low, high = (middle, high) if fine else (low, middle - 1)
    low = low // 64 * 64
    unit = config.nbout_lanes if form.opcode in (Opcode.MM, Opcode.CONV) else 1
    values[name] = min(2**32 - 1, max(0, low + unit * rng.choice((-1, 0, 1, 2, 4, 8, 62, 63, 64))))


def mutate(rng, form, values):
    """One field to zero, to an extreme or to anything."""
    field = rng.choice(form.fields)
    values[field.name] = rng.choice((0, (1 << field.width) - 1, rng.getrandbits(field.width)))


def cases(rng, config, count):
    for number in range(count):
        form = list(INSTRUCTIONS.values())[number % len(INSTRUCTIONS)]
        values = legal(rng, form, config)
        if form.fields and number % 3 == 1 and form.opcode != Opcode.CROSET:
            at_the_edge(rng, form, values, config)
        elif form.fields and number % 3 == 2:
            mutate(rng, form, values)
        yield form, values


async def ask(dut, raw):
    dut.instruction.value, dut.start.value = raw, 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
    for cycle in range(1, 20):
        await ReadOnly()
        if dut.done.value:
            code = int(dut.code.value)
            await RisingEdge(dut.clk)
            return code, cycle
        await RisingEdge(dut.clk)
    raise AssertionError("no answer")


async def start(dut):
    dut.start.value, dut.instruction.value, dut.memory_bytes.value = 0, 0, MEMORY
    await bench.start(dut)
    return CAMBRICONQ[bench.parameters()["config"]], random.Random(random.getrandbits(32))


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_codes(dut):
    config, rng = await start(dut)
    seen = dict.fromkeys(ErrorCode, 0)
    for form, values in cases(rng, config, 6000):
        raw = int.from_bytes(isa.encode(Instruction.of(form.opcode, **values)), "little")
        try:
            isa.decode(raw.to_bytes(isa.INSTRUCTION_BYTES, "little"))
            expected = check(form.opcode.name, values, config, MEMORY)
        except ValueError:
            expected = ErrorCode.ILLEGAL_INSTRUCTION
        code, cycles = await ask(dut, raw)
        assert code == expected, f"{form.opcode.name} {values}: {code}, not {expected!r}"
        assert cycles <= 14
        seen[expected] += 1
    assert all(seen[code] >= 15 for code in ErrorCode if code < ErrorCode.TAG_MISMATCH), seen


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_every_reserved_bit(dut):
    """Each bit that no field covers, and opcodes that do not exist."""
    config, rng = await start(dut)
    for form in INSTRUCTIONS.values():
        raw = int.from_bytes(isa.encode(Instruction.of(form.opcode, **legal(rng, form, config))), "little")
        covered = {b for f in form.fields for b in range(32 * f.word + f.low, 32 * f.word + f.low + f.width)} | set(range(8))
        for bit in set(range(512)) - covered:
            assert (await ask(dut, raw ^ 1 << bit))[0] == ErrorCode.ILLEGAL_INSTRUCTION, f"{form.opcode.name}, bit {bit}"
    for opcode in set(range(256)) - set(map(int, INSTRUCTIONS)):
        assert (await ask(dut, opcode))[0] == ErrorCode.ILLEGAL_INSTRUCTION


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config, _ = await start(dut)
    fine = int.from_bytes(isa.encode(Instruction.of(Opcode.VADD, rows=1, cols=1)), "little")
    wrong = int.from_bytes(isa.encode(Instruction.of(Opcode.VADD, rows=1, cols=1, b=config.nbout_words)), "little")
    for cycles in range(1, 10):
        dut.instruction.value, dut.start.value = wrong, 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        await bench.reset(dut)
        assert (await ask(dut, fine))[0] == ErrorCode.NONE
        assert (await ask(dut, wrong))[0] == ErrorCode.BUFFER_RANGE


@pytest.mark.parametrize("config", ["tiny", "paper"])
def test_checker(config):
    from nibblecore.hdl.cambriconq.program.instruction_checker import InstructionChecker

    bench.run(InstructionChecker(CAMBRICONQ[config]), __file__, "instruction_checker", parameters={"config": config})
