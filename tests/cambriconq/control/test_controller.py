import random
from itertools import permutations, product

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.control.controller import Constants
from nibblecore.hdl.cambriconq.program import isa
from nibblecore.hdl.cambriconq.program.isa import Constant, Instruction, Opcode
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.golden.cambriconq.control.scoreboard import Lane, conflict, lane_of, ranges
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from structs import split

MEMORY = 1 << 16
PROGRAM = 1 << 15
HALT = Instruction.of(Opcode.HALT)
WORKING = [opcode for opcode in Opcode if opcode not in (Opcode.HALT, Opcode.CROSET)]


def small(opcode, **fields):
    """An instruction that is in order."""
    names = {field.name for field in isa.INSTRUCTIONS[opcode].fields}
    ones = {"rows", "cols", "group", "a_slot", "w_slot", "vectors", "out_width", "stride", "kernel_rows", "kernel_cols"}
    # A VTURN goes to the other buffer, since it must not meet itself.
    other = {"src_side": 1 - fields.get("side", 0)} if "src_side" in names else {}
    return Instruction.of(opcode, **dict.fromkeys(names & ones, 1) | ({"slot": 2} if "slot" in names else {}) | fields | other)


def placed(rng, opcode):
    """One somewhere in a small part of every space, so that some conflict."""
    fields = {"phase": rng.randrange(8)}
    for field in isa.INSTRUCTIONS[opcode].fields:
        if field.name in ("a", "b", "w", "m", "v", "dest", "src", "dest_tags", "src_tags"):
            fields[field.name] = 64 * rng.randrange(6)
        elif field.name == "side":
            fields[field.name] = rng.randrange(2)
    return small(opcode, **fields)


def bits(instruction):
    return int.from_bytes(isa.encode(instruction), "little")


class Around:
    """Memory, and lanes that work for a while; checks that what they do side by side may be so."""

    def __init__(self, dut, rng, *names):
        self.dut, self.rng, self.config = dut, rng, CAMBRICONQ[bench.parameters()["config"]]
        self.patterns = [bench.PATTERNS[name](rng.getrandbits(32)) for name in names or ("always", "always")]
        self.memory = bytearray(MEMORY)
        self.program, self.log, self.at_work, self.fail, self.long = [], [], {}, {}, 12
        self.lasts: dict[int, int] = {}  # how long an instruction takes, by its number; others take any time below `long`
        self.together = 0
        self.oldest: int | None = None  # phase of the oldest instruction at work
        self.phases = [0] * 8

    def start(self):
        self.tasks = [cocotb.start_soon(self.reads()), cocotb.start_soon(self.lanes())]
        return self.tasks

    async def reads(self):
        line = bench.parameters()["line_bytes"]
        while True:
            word = (await bench.receive(self.dut, "read_command", 1, self.patterns[0]))[0]
            address, beats = word & 2**32 - 1, word >> 32
            assert beats * line == isa.INSTRUCTION_BYTES and address + isa.INSTRUCTION_BYTES <= len(self.memory)
            assert not self.updating(), "fetched while the engine has the memory"
            data = [
                int.from_bytes(self.memory[at : at + line], "little")
                for at in range(address, address + isa.INSTRUCTION_BYTES, line)
            ]
            await bench.send(self.dut, "read_data", data, self.patterns[1])
            assert not self.updating(), "fetched while the engine has the memory"

    def updating(self):
        return any(self.program[number].opcode == Opcode.WGSTORE for number, _ in self.at_work.values())

    def may_run_beside(self, new, old):
        names = {new.opcode, old.opcode}
        ports, products = {Opcode.VSTORE, Opcode.VTURN}, {Opcode.MM, Opcode.CONV}
        loads = {opcode for opcode in WORKING if lane_of(opcode.name) == Lane.LOAD}
        if (names & ports and names & products) or (Opcode.WGSTORE in names and names & loads):
            return False
        return not conflict(*(ranges(i.opcode.name, i.fields, self.config) for i in (new, old)))

    async def lanes(self):
        dut = self.dut
        while True:
            await ReadOnly()
            starts, ends = int(dut.starts.value), int(dut.ended.value)
            busy, phase = int(dut.busy.value), int(dut.phase.value)
            given = [int(getattr(dut, f"instructions__{lane}").value) for lane in Lane]
            self.phases[phase] += busy
            assert self.oldest in (None, phase), f"counts for phase {phase}, not {self.oldest}"
            # A cycle after the lanes; with none at work the phase stays, and a program begins with 0.
            self.oldest = self.program[min(number for number, _ in self.at_work.values())].phase if self.at_work else phase
            if dut.start.value and not busy:
                self.oldest = 0
            if dut.rst.value:
                self.oldest = None
            await RisingEdge(dut.clk)
            for lane in Lane:
                if ends >> lane & 1:
                    del self.at_work[lane]
            for lane in Lane:
                if starts >> lane & 1:
                    assert lane not in self.at_work
                    number = len(self.log)
                    while self.program[number].opcode == Opcode.CROSET:
                        self.log.append(number)
                        number += 1
                    new = self.program[number]
                    assert given[lane] == bits(new) and lane_of(new.opcode.name) == lane
                    for other, _ in self.at_work.values():
                        assert self.may_run_beside(new, self.program[other]), (new, self.program[other])
                    self.log.append(number)
                    lasts = self.lasts[number] if number in self.lasts else self.rng.randrange(self.long)
                    self.at_work[lane] = [number, lasts]
            self.together += len(self.at_work) > 1
            ended = 0
            for lane, work in self.at_work.items():
                assert given[lane] == bits(self.program[work[0]]) or starts >> lane & 1
                if work[1] == 0:
                    ended |= 1 << lane
                    getattr(dut, f"codes__{int(lane)}").value = self.fail.get(work[0], 0)
                work[1] -= 1
            dut.ended.value = ended

    async def run(self, program, at=PROGRAM, drive=None):
        """Returns (code, index) that a program ends with; `drive` says what inputs become in which cycle, counted from that of `start`.

        Of every cycle `trace` has what was started before it, and `arrived` those in which an instruction had come whole from memory.
        """
        dut = self.dut
        binary = b"".join(item if isinstance(item, bytes) else isa.encode(item) for item in program)
        self.memory[at : at + len(binary)] = binary
        self.program, self.log, self.at_work = program, [], {}
        self.trace, self.arrived, beats = [], [], 0
        dut.entry.value, dut.start.value = at, 1
        for cycle in range(20000):
            for port, value in (drive or {}).get(cycle, {}).items():
                getattr(dut, port).value = value
            await ReadOnly()
            self.trace.append(int(dut.started.value))
            beats += int(dut.read_data__valid.value) & int(dut.read_data__ready.value)
            if beats * bench.parameters()["line_bytes"] == isa.INSTRUCTION_BYTES:
                self.arrived.append(cycle)
                beats = 0
            for task in self.tasks:
                assert not task.done(), task.result()
            if cycle and not dut.busy.value:
                result = int(dut.code.value), int(dut.index.value)
                assert not self.at_work and not dut.starts.value
                await RisingEdge(dut.clk)
                return result
            await RisingEdge(dut.clk)
            dut.start.value = 0
        raise AssertionError("hangs")


async def begin(dut):
    for port in (
        "start",
        "entry",
        "stop",
        "read_command__ready",
        "read_data__valid",
        "read_data__payload",
        "read_error",
        "ended",
        "codes__0",
        "codes__1",
        "codes__2",
    ):
        getattr(dut, port).value = 0
    dut.memory_bytes.value = MEMORY
    await bench.start(dut)
    return random.Random(random.getrandbits(32))


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_order(dut):
    """Every instruction goes to its lane, in order, beside others where it may; HALT ends the program when all have ended."""
    rng = await begin(dut)
    names = list(bench.PATTERNS)
    for turn in range(12):
        around = Around(dut, rng, names[turn % 4], names[turn // 2 % 4])
        around.long = rng.choice((2, 12, 60))
        tasks = around.start()
        program = [placed(rng, rng.choice(WORKING)) for _ in range(60)]
        assert await around.run([*program, HALT, small(Opcode.MM)], PROGRAM + 64 * rng.randrange(100)) == (0, len(program))
        assert around.log == list(range(len(program))) and int(dut.started.value) == len(program)
        if around.long > 2 and names[turn % 4] == names[turn // 2 % 4] == "always":
            assert around.together > 100
        for task in tasks:
            task.cancel()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_side_by_side(dut):
    """What conflicts with nothing starts at once in every lane, and waits for nothing but its own."""
    rng = await begin(dut)
    around = Around(dut, rng)
    around.start()
    program = [small(Opcode.QLOAD, dest=8), small(Opcode.QMOVE, side=1, src=99), small(Opcode.VFUN, dest=200, a=300)] * 8
    around.long = 400
    assert await around.run([*program, HALT]) == (0, len(program))
    assert around.together > 8 * 100
    for first, second in (
        (Opcode.VSTORE, Opcode.MM),
        (Opcode.CONV, Opcode.VTURN),
        (Opcode.WGSTORE, Opcode.SLOAD),
        (Opcode.QLOAD, Opcode.WGSTORE),
    ):
        far = {"dest": 4096} if second == Opcode.SLOAD else {}
        around.together = 0
        assert await around.run([small(first), small(second, **far), HALT]) == (0, 2)
        assert around.together == 0


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_loads_wait_for_the_engine(dut):
    """Also those that had been fetched before the update started."""
    rng = await begin(dut)
    around = Around(dut, rng)
    around.start()
    around.long = 100
    for load in (Opcode.SLOAD, Opcode.VLOAD, Opcode.QLOAD):
        far = {"dest": 4096} if load == Opcode.SLOAD else {"src": 8192, "dest": 64}
        update = small(Opcode.WGSTORE, w=512, m=1024, v=2048, src=64)
        assert await around.run([small(Opcode.VFUN), small(Opcode.VFUN), update, small(load, **far), HALT]) == (0, 4)
        # And the update for loads, although nothing more can be fetched.
        for _ in range(8):
            ended = await around.run([small(load, **far | {"phase": 1}), update], at=MEMORY - 128)
            assert ended == (ErrorCode.MEMORY_RANGE, 2)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_what_is_behind_a_waiting_update_is_fetched(dut):
    """So that it can run beside the update, which keeps the fetcher from the memory."""
    rng = await begin(dut)
    around = Around(dut, rng)
    around.start()
    around.rng = type("Fixed", (), {"randrange": staticmethod(lambda most: 300)})
    update = small(Opcode.WGSTORE, w=512, m=1024, v=2048, src=64)
    program = [small(Opcode.QMOVE), update, small(Opcode.VFUN, dest=128, a=128), small(Opcode.VFUN, dest=128, a=128)]
    assert await around.run([*program, HALT]) == (0, 4)
    assert 900 < sum(around.phases) < 1000


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_phases(dut):
    """A cycle counts for the oldest instruction at work."""
    rng = await begin(dut)
    around = Around(dut, rng)
    around.start()
    around.long = 1
    program = [small(Opcode.VFUN, phase=3), small(Opcode.VFUN, phase=5)]
    around.rng = type("Fixed", (), {"randrange": staticmethod(lambda most: 300)})
    assert await around.run([*program, HALT]) == (0, 2)
    assert around.phases[3] > 300 and around.phases[5] > 300 and sum(around.phases) < 800
    around.phases = [0] * 8
    beside = [small(Opcode.QLOAD, phase=6), small(Opcode.VFUN, phase=7, dest=64, a=64)]
    assert await around.run([*beside, HALT]) == (0, 2)
    assert around.phases[6] > 300 and 0 < around.phases[7] < 60


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_constants(dut):
    rng = await begin(dut)
    around = Around(dut, rng)
    around.start()
    values = {register: rng.getrandbits(32) for register in range(6)} | {6: 2, 16: 0x8D16, 32: 0x0005}
    values |= {
        first + number: (number & 3) | (rng.getrandbits(4) << 4) | (number + 1) << 16 for first in (17, 33) for number in range(4)
    }
    program = [Instruction.of(Opcode.CROSET, register=register, value=value) for register, value in values.items()]
    assert await around.run([*program, HALT]) == (0, len(program))
    assert not around.log
    await ReadOnly()
    seen = split(Constants, int(dut.constants.value))
    assert bench.unpack(seen["optimizer"], 32, 6) == [values[register] for register in range(6)]
    assert (seen["use_m"], seen["use_rsqrt"]) == (0, 1)
    for name, first in (("core_squ", 16), ("memory_squ", 32)):
        word, main = seen[name], values[first]
        for number in range(4):
            value = values[first + 1 + number]
            assert word >> 21 * number & (1 << 21) - 1 == value & 3 | (value >> 4 & 15) << 2 | (value >> 16) << 6
        assert word >> 84 == main & 3 | (main >> 2 & 3) << 2 | (main >> 4 & 1) << 4 | (main >> 8) << 5


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_constants_after_a_reset(dut):
    rng = await begin(dut)
    around = Around(dut, rng)
    tasks = around.start()
    eight_bits = sum((1 | 127 << 6) << 21 * number for number in range(4))
    registers = [*range(7), *range(16, 21), *range(32, 37)]
    for _ in range(2):
        await ReadOnly()
        seen = split(Constants, int(dut.constants.value))
        assert (seen["core_squ"], seen["memory_squ"]) == (eight_bits, eight_bits)
        assert not any(value for name, value in seen.items() if not name.endswith("squ"))
        await RisingEdge(dut.clk)
        full = {number: 0xFFFFFFFF if number < 6 else 3 for number in registers} | {16: 0xFF1B, 32: 0xFF1B}
        full |= {number: 0x7FFF00F3 for number in registers if number % 16 and number > 16}
        program = [Instruction.of(Opcode.CROSET, register=register, value=value) for register, value in full.items()]
        assert await around.run([*program, HALT]) == (0, len(program))
        for task in tasks:
            task.cancel()
        await bench.reset(dut)
        tasks = around.start()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_every_candidate_in_use_fits_its_slot(dut):
    """Of 12 bits, in a slot of 8: each of the four, with as many in use as there can be."""
    rng = await begin(dut)
    around = Around(dut, rng)
    around.start()
    for unit, opcode in ((Constant.SQU, Opcode.QMOVE), (Constant.MEMORY_SQU, Opcode.QLOAD)):
        for wide, most in product(range(4), range(4)):
            candidates = [
                Instruction.of(Opcode.CROSET, register=unit + 1 + n, value=(2 if n == wide else 1) | 1 << 16) for n in range(4)
            ]
            count = Instruction.of(Opcode.CROSET, register=unit, value=most | 5 << 8)
            ended = await around.run([*candidates, count, small(opcode), HALT])
            assert ended == ((ErrorCode.BAD_FORMAT, 5) if wide <= most else (0, 6)), (opcode, wide, most)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_constants_wait(dut):
    """A constant does not change while the lane that reads it works; others may run on."""
    rng = await begin(dut)
    around = Around(dut, rng)
    around.start()
    around.rng = type("Fixed", (), {"randrange": staticmethod(lambda most: 200)})
    cases = (
        (Opcode.WGSTORE, Constant.C1, True),
        (Opcode.QMOVE, Constant.SQU_CANDIDATE2, True),
        (Opcode.QLOAD, Constant.MEMORY_SQU, True),
        (Opcode.QLOAD, Constant.SQU, False),
        (Opcode.QMOVE, Constant.MEMORY_SQU_CANDIDATE0, False),
        (Opcode.MM, Constant.SQU, False),
    )
    for opcode, register, waits in cases:
        value = 3 << 16 if "CANDIDATE" in register.name else 5 << 8
        run = cocotb.start_soon(around.run([small(opcode), Instruction.of(Opcode.CROSET, register=register, value=value), HALT]))
        await RisingEdge(dut.clk)
        changed = False
        await ReadOnly()
        before = int(dut.constants.value)
        while not around.at_work:
            await RisingEdge(dut.clk)
        while around.at_work:
            await ReadOnly()
            changed |= int(dut.constants.value) != before or int(dut.started.value) > 1
            await RisingEdge(dut.clk)
        assert await run == (0, 2)
        assert changed == (not waits), opcode


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_stops(dut):
    """Each way to end: nothing is started at or after the instruction that fails its check, and the next program runs."""
    rng = await begin(dut)
    around = Around(dut, rng)
    around.start()
    good = small(Opcode.VADD)
    wide = Instruction.of(Opcode.CROSET, register=Constant.SQU_CANDIDATE0, value=2 | 1 << 16)
    for before in (0, 3):
        refused = (
            (b"\xff" + bytes(63), ErrorCode.ILLEGAL_INSTRUCTION),
            (Instruction.of(Opcode.VADD), ErrorCode.ZERO_SIZE),
            (small(Opcode.SLOAD, src=2), ErrorCode.MISALIGNED),
            (small(Opcode.SLOAD, src=MEMORY), ErrorCode.MEMORY_RANGE),
            (small(Opcode.QMOVE, slot=1), ErrorCode.BAD_FORMAT),
            (small(Opcode.QLOAD, slot=1), ErrorCode.BAD_FORMAT),
        )
        for bad, code in refused:
            assert await around.run([good] * before + [bad, good, HALT]) == (code, before)
            assert len(around.log) == before == int(dut.started.value)
        around.fail = {before: 7}
        assert await around.run([good] * (before + 1) + [good, HALT]) == (7, before)
        assert len(around.log) == before + 1
        around.fail = {}
        assert await around.run([good] * before + [HALT]) == (0, before)
    assert await around.run([wide, small(Opcode.QLOAD), small(Opcode.QMOVE), HALT]) == (ErrorCode.BAD_FORMAT, 2)
    dut.read_error.value = 1
    assert await around.run([good, HALT]) == (ErrorCode.BUS_READ, 0)
    dut.read_error.value = 0
    assert await around.run([good], at=MEMORY - 64) == (ErrorCode.MEMORY_RANGE, 1)
    assert await around.run([], at=MEMORY) == (ErrorCode.MEMORY_RANGE, 0)
    assert await around.run([], at=MEMORY - 32) == (ErrorCode.MISALIGNED, 0)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_the_earliest_failure_counts(dut):
    """Several lanes fail in any order; what has been started has run, and no more is."""
    rng = await begin(dut)
    around = Around(dut, rng)
    around.start()
    around.long = 80
    first_later = 0
    for _ in range(60):
        program = [placed(rng, rng.choice(WORKING)) for _ in range(12)]
        number = rng.randrange(9)
        around.fail = {n: rng.choice((7, 8, ErrorCode.BUS_WRITE)) for n in (number, *(rng.sample(range(number + 1, 12), 2)))}
        code, index = await around.run([*program, HALT])
        assert (code, index) == (around.fail[number], number)
        assert around.log == list(range(int(dut.started.value)))
        first_later += len(around.log) > number + 1
    assert first_later > 10


APART = {
    Lane.LOAD: small(Opcode.QLOAD, dest=8),
    Lane.STORE: small(Opcode.QMOVE, side=1, src=99),
    Lane.COMPUTE: small(Opcode.VFUN, dest=200, a=300),
}
"""Instructions that wait for nothing but their own lane."""


async def alone(dut):
    """Lanes and memory that take the same time in every run."""
    around = Around(dut, await begin(dut))
    around.long = 1
    return around, around.start()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_stop_in_every_cycle(dut):
    """What is started in the cycle of the stop runs, nothing after it does; in the cycle of the start, or while idle, a stop does nothing."""
    around, _ = await alone(dut)
    constant = Instruction.of(Opcode.CROSET, register=Constant.C1, value=7)
    program = [APART[Lane.STORE], constant, APART[Lane.COMPUTE], APART[Lane.LOAD], small(Opcode.MM), APART[Lane.COMPUTE]]
    around.lasts = dict(enumerate((30, 0, 9, 40, 5, 3)))
    assert await around.run([*program, HALT]) == (0, len(program))
    whole = around.trace
    coincidences = 0
    for cycle in range(len(whole)):
        before = around.trace[-1]
        ended = await around.run([*program, HALT], drive={cycle: {"stop": 1}, cycle + 1: {"stop": 0}})
        dut.stop.value = 0
        started = len(program) if cycle in (0, len(whole) - 1) else whole[cycle + 1]
        ran = [number for number in around.log if program[number] is not constant]
        assert ended == (0, started) and int(dut.started.value) == started, f"stop in cycle {cycle}"
        assert ran == [number for number in range(started) if program[number] is not constant], f"stop in cycle {cycle}"
        coincidences += 0 < cycle < len(whole) - 1 and whole[cycle + 1] > whole[cycle]
        assert around.trace[:2] == [before, 0]
    assert coincidences == len(program)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_failure_in_every_cycle(dut):
    """What starts in the cycle of a failure runs, nothing after it. A stop in that cycle changes nothing, nor does a bad instruction."""
    around, _ = await alone(dut)
    for lane in Lane:
        others = [APART[other] for other in Lane if other != lane]
        program = [APART[lane], *others * 2]
        last = len(program)
        around.lasts, around.fail = dict.fromkeys(range(1, last), 2) | {0: 150}, {}
        for end, bad_follows in ((HALT, False), (small(Opcode.SLOAD, src=2), True)):
            around.lasts[0], around.fail = 150, {}
            assert await around.run([*program, end]) == ((ErrorCode.MISALIGNED if bad_follows else 0), last)
            whole = around.trace
            first = whole.index(1, 1)
            coincidences = 0
            for lasts in range(150):
                # `starts` is up in the cycle `first`; the lane is at work from the next on.
                cycle = first + 1 + lasts
                drive = {cycle: {"stop": 1}, cycle + 1: {"stop": 0}} if lasts % 2 and not bad_follows else {}
                around.lasts[0], around.fail = lasts, {0: 8}
                assert await around.run([*program, end], drive=drive) == (8, 0), f"{lane!r} fails in cycle {cycle}"
                dut.stop.value = 0
                assert int(dut.started.value) == len(around.log) == whole[cycle + 1], f"{lane!r} fails in cycle {cycle}"
                coincidences += whole[cycle + 1] > whole[cycle]
                if whole[cycle - 3] == last:
                    break
            assert coincidences >= 3


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_failures_at_once(dut):
    """All lanes fail, a cycle apart or in the same one, the oldest in any lane: the earliest instruction counts."""
    around, _ = await alone(dut)
    at_once = 0
    for order in permutations(Lane):
        program = [APART[lane] for lane in order]
        around.lasts, around.fail = dict.fromkeys(range(3), 100), {}
        assert await around.run([*program, HALT]) == (0, 3)
        starts = [around.trace.index(number + 1, 1) for number in range(3)]
        for apart in product(range(2), repeat=3):
            around.lasts = {number: 40 + apart[number] - starts[number] + starts[0] for number in range(3)}
            around.fail = {0: 7, 1: 8, 2: int(ErrorCode.BUS_WRITE)}
            assert await around.run([*program, HALT]) == (7, 0), f"{order}, {apart}"
            # Two of them, the oldest of which is not the first.
            del around.fail[0]
            assert await around.run([*program, HALT]) == (8, 1), f"{order}, {apart}"
            at_once += len(set(apart)) == 1
    assert at_once == 2 * 6


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_bus_error_in_every_cycle(dut):
    """Of the reader's instructions that one fails which is in hand when the error shows, however late the program gets there."""
    around, _ = await alone(dut)
    program = [APART[Lane.STORE], APART[Lane.COMPUTE], APART[Lane.STORE], APART[Lane.LOAD], APART[Lane.COMPUTE]]
    around.lasts = dict.fromkeys(range(5), 20)
    assert await around.run([*program, HALT]) == (0, len(program))
    # The fetcher looks at it the cycle after the last beat.
    looked = [cycle + 1 for cycle in around.arrived]
    hit = set()
    for cycle in range(1, looked[len(program)] + 2):
        number = next((number for number, at in enumerate(looked) if at >= cycle), len(program))
        expected = (ErrorCode.BUS_READ, number) if number <= len(program) and cycle <= looked[len(program)] else (0, len(program))
        assert await around.run([*program, HALT], drive={cycle: {"read_error": 1}}) == expected, f"from cycle {cycle} on"
        dut.read_error.value = 0
        if cycle in looked:
            hit.add(number)
    assert hit == set(range(len(program) + 1))


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_reset_in_every_cycle(dut):
    """Also of the start, of a stop and of a failure; the next program finds nothing left of it."""
    around, tasks = await alone(dut)
    program = [APART[Lane.STORE], APART[Lane.COMPUTE], APART[Lane.LOAD], small(Opcode.SLOAD, src=2), HALT]
    around.lasts, around.fail = {0: 5, 1: 9, 2: 3}, {1: 8}
    assert await around.run(program) == (8, 1)
    for cycle in range(len(around.trace)):
        run = cocotb.start_soon(around.run(program, drive={cycle: {"stop": cycle % 2, "rst": 1}}))
        for _ in range(cycle + 1):
            await RisingEdge(dut.clk)
        for task in (run, *tasks):
            task.cancel()
        for port in ("read_data__valid", "read_command__ready", "ended", "start", "stop"):
            getattr(dut, port).value = 0
        await bench.reset(dut)
        await ReadOnly()
        ports = ("busy", "code", "index", "started", "phase", "starts")
        assert not any(int(getattr(dut, port).value) for port in ports), f"reset in cycle {cycle}"
        await RisingEdge(dut.clk)
        tasks, around.fail = around.start(), {}
        assert await around.run([*program[:3], HALT], at=4096) == (0, 3), f"after a reset in cycle {cycle}"
        around.fail = {1: 8}


@pytest.mark.parametrize("config", ["tiny", "paper"])
def test_controller(config):
    from nibblecore.hdl.cambriconq.control.controller import Controller

    parameters = {"line_bytes": CAMBRICONQ[config].line_bytes, "config": config}
    bench.run(Controller(CAMBRICONQ[config]), __file__, "controller", parameters=parameters)
