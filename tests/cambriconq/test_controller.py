import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq import isa
from nibblecore.hdl.cambriconq.controller import BUS_READ, BUS_WRITE, Constants, Unit
from nibblecore.hdl.cambriconq.isa import Instruction, Opcode
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.golden.cambriconq.checker import ErrorCode
from structs import split

MEMORY = 1 << 16
UNITS = {
    Unit.STRIPES: (Opcode.SLOAD, Opcode.SSTORE), Unit.VECTORS: (Opcode.VLOAD, Opcode.VSTORE),
    Unit.QUANTIZE: (Opcode.QLOAD, Opcode.QSTORE, Opcode.QMOVE), Unit.UPDATE: (Opcode.WGSTORE,), Unit.MATRIX: (Opcode.MM, Opcode.CONV),
    Unit.ARITHMETIC: (Opcode.VADD, Opcode.VSUB, Opcode.VMUL, Opcode.VMAX, Opcode.VSTEP, Opcode.VFMUL, Opcode.VFUN, Opcode.HADD, Opcode.HMUL,
                      Opcode.HMAX),
}  # fmt: skip


def small(opcode):
    """An instruction that is in order."""
    names = {field.name for field in isa.INSTRUCTIONS[opcode].fields}
    ones = {"rows", "cols", "slot", "group", "a_slot", "w_slot", "vectors", "out_width", "stride", "kernel_rows", "kernel_cols"}
    return Instruction.of(opcode, **dict.fromkeys(names & ones, 1))


class Around:
    """Memory, and units that work for a while and log what they were given."""

    def __init__(self, dut, memory, patterns, rng):
        self.dut, self.memory, self.patterns, self.rng = dut, memory, patterns, rng
        self.log, self.fetched, self.fail = [], [], {}

    def start(self):
        return [cocotb.start_soon(self.reads()), cocotb.start_soon(self.units())]

    async def reads(self):
        line = bench.parameters()["line_bytes"]
        while True:
            word = (await bench.receive(self.dut, "read_command", 1, self.patterns[0]))[0]
            address, beats = word & 2**32 - 1, word >> 32
            assert beats * line == isa.INSTRUCTION_BYTES and address + isa.INSTRUCTION_BYTES <= len(self.memory)
            self.fetched.append(address)
            beats = [
                int.from_bytes(self.memory[at : at + line], "little")
                for at in range(address, address + isa.INSTRUCTION_BYTES, line)
            ]
            await bench.send(self.dut, "read_data", beats, self.patterns[1])

    async def units(self):
        dut = self.dut
        while True:
            await ReadOnly()
            starts, raw = int(dut.starts.value), int(dut.instruction.value)
            await RisingEdge(dut.clk)
            if not starts:
                continue
            assert starts & starts - 1 == 0
            self.log.append((Unit(starts.bit_length() - 1), raw))
            for _ in range(self.rng.randrange(6)):
                await ReadOnly()
                assert int(dut.instruction.value) == raw and not dut.starts.value
                await RisingEdge(dut.clk)
            dut.unit_code.value, dut.done.value = self.fail.get(len(self.log) - 1, 0), 1
            await RisingEdge(dut.clk)
            dut.done.value = 0


async def begin(dut):
    for port in ("start", "entry", "stop", "read_command__ready", "read_data__valid", "read_data__payload", "read_error", "write_error",
                 "done", "unit_code"):  # fmt: skip
        getattr(dut, port).value = 0
    dut.memory_bytes.value = MEMORY
    await bench.start(dut)
    return random.Random(random.getrandbits(32))


async def run(dut, around, program, at=0):
    """Returns (code, index) that a program ends with."""
    binary = b"".join(item if isinstance(item, bytes) else isa.encode(item) for item in program)
    around.memory[at : at + len(binary)] = binary
    around.log.clear()
    around.fetched.clear()
    dut.entry.value, dut.start.value = at, 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
    for _ in range(20000):
        await ReadOnly()
        if not dut.busy.value:
            result = int(dut.code.value), int(dut.index.value)
            await RisingEdge(dut.clk)
            return result
        await RisingEdge(dut.clk)
    raise AssertionError("hangs")


def surroundings(dut, rng, *names):
    return Around(
        dut, bytearray(MEMORY), [bench.PATTERNS[name](rng.getrandbits(32)) for name in names or ("always", "always")], rng
    )


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_order(dut):
    """Every instruction goes to its unit, in order, as it is in memory; HALT ends the program."""
    rng = await begin(dut)
    names = list(bench.PATTERNS)
    opcodes = [opcode for group in UNITS.values() for opcode in group]
    for turn in range(8):
        around = surroundings(dut, rng, names[turn % 4], names[turn // 2 % 4])
        tasks = around.start()
        program = [small(opcode) for opcode in rng.sample(opcodes, len(opcodes))]
        at = 64 * rng.randrange(100)
        assert await run(dut, around, [*program, Instruction.of(Opcode.HALT), small(Opcode.MM)], at) == (0, len(program))
        assert [(unit, raw) for unit, raw in around.log] == [
            (next(unit for unit, group in UNITS.items() if item.opcode in group), int.from_bytes(isa.encode(item), "little"))
            for item in program
        ]
        assert around.fetched == [at + 64 * number for number in range(len(program) + 1)]
        for task in tasks:
            task.cancel()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_constants(dut):
    rng = await begin(dut)
    around = surroundings(dut, rng)
    around.start()
    values = {register: rng.getrandbits(32) for register in range(6)} | {6: 2, 7: 5, 16: 0x8D16, 32: 0x0005}
    values |= {
        first + number: (number & 3) | (rng.getrandbits(4) << 4) | (number + 1) << 16 for first in (17, 33) for number in range(4)
    }
    program = [Instruction.of(Opcode.CROSET, register=register, value=value) for register, value in values.items()]
    assert await run(dut, around, [*program, Instruction.of(Opcode.HALT)]) == (0, len(program))
    assert not around.log
    await ReadOnly()
    seen = split(Constants, int(dut.constants.value))
    assert bench.unpack(seen["optimizer"], 32, 6) == [values[register] for register in range(6)]
    assert (seen["use_m"], seen["use_rsqrt"], seen["phase"]) == (0, 1, 5)
    for name, first in (("core_squ", 16), ("memory_squ", 32)):
        word, main = seen[name], values[first]
        for number in range(4):
            value = values[first + 1 + number]
            assert word >> 21 * number & (1 << 21) - 1 == value & 3 | (value >> 4 & 15) << 2 | (value >> 16) << 6
        assert word >> 84 == main & 3 | (main >> 2 & 3) << 2 | (main >> 4 & 1) << 4 | (main >> 8) << 5


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_stops(dut):
    """Each way to end: nothing is started at or after the instruction that fails, and the next program runs."""
    rng = await begin(dut)
    around = surroundings(dut, rng)
    around.start()
    good, halt = small(Opcode.VADD), Instruction.of(Opcode.HALT)
    for before in (0, 3):
        for bad, code in ((b"\xff" + bytes(63), ErrorCode.ILLEGAL_INSTRUCTION), (Instruction.of(Opcode.VADD), ErrorCode.ZERO_SIZE),
                          (Instruction.of(Opcode.SLOAD, rows=1, cols=1, src=2), ErrorCode.MISALIGNED),
                          (Instruction.of(Opcode.SLOAD, rows=1, cols=1, src=MEMORY), ErrorCode.MEMORY_RANGE)):  # fmt: skip
            assert await run(dut, around, [good] * before + [bad, good, halt]) == (code, before)
            assert len(around.log) == before
        around.fail = {before: 7}
        assert await run(dut, around, [good] * (before + 1) + [good, halt]) == (7, before)
        assert len(around.log) == before + 1
        around.fail = {}
        assert await run(dut, around, [good] * before + [halt]) == (0, before)
    for port, code in (("read_error", BUS_READ), ("write_error", BUS_WRITE)):
        getattr(dut, port).value = 1
        assert (await run(dut, around, [good, halt]))[0] == code
        getattr(dut, port).value = 0
    assert await run(dut, around, [good], at=MEMORY - 64) == (ErrorCode.MEMORY_RANGE, 1)
    assert await run(dut, around, [], at=MEMORY) == (ErrorCode.MEMORY_RANGE, 0)
    assert await run(dut, around, [], at=MEMORY - 32) == (ErrorCode.MISALIGNED, 0)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_stop_and_reset(dut):
    rng = await begin(dut)
    around = surroundings(dut, rng)
    tasks = around.start()
    good, halt = small(Opcode.MM), Instruction.of(Opcode.HALT)
    binary = isa.encode(good) * 50
    around.memory[: len(binary)] = binary
    for cycles in (3, 20, 41, 60):
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        dut.stop.value = 1
        await RisingEdge(dut.clk)
        dut.stop.value = 0
        for _ in range(80):
            await RisingEdge(dut.clk)
        assert not dut.busy.value and not dut.code.value and int(dut.index.value) < 50
    for cycles in (2, 9, 17, 30):
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        for task in tasks:
            task.cancel()
        dut.read_data__valid.value = dut.read_command__ready.value = dut.done.value = 0
        await bench.reset(dut)
        tasks = around.start()
        assert await run(dut, around, [good, good, halt], at=4096) == (0, 2)


@pytest.mark.parametrize("config", ["tiny", "paper"])
def test_controller(config):
    from nibblecore.hdl.cambriconq.controller import Controller

    bench.run(Controller(CAMBRICONQ[config]), __file__, "controller", parameters={"line_bytes": CAMBRICONQ[config].line_bytes})
