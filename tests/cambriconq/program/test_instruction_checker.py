import random

import bench
import cocotb
import pytest
from amaranth.hdl import Fragment
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.program import isa
from nibblecore.hdl.cambriconq.program.instruction_checker import InstructionChecker
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTIONS, Constant, Instruction, Opcode
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.golden.cambriconq.control.scoreboard import Space, ranges
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.golden.cambriconq.program.instruction_checker import check, conditions

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


_NBIN, _SB = 0, 1


def in_order(rng, form, config):
    """A small instruction that may run: several rows and columns, a distance between them, places low in their spaces."""
    values = {}
    for field in form.fields:
        name = field.name
        if field.choices is not None:
            value = int(rng.choice(list(field.choices)))
        elif name in ("rows", "cols", "vectors", "out_width", "stride", "kernel_rows", "kernel_cols"):
            value = rng.randint(2, 4)
        elif name.endswith("slot"):
            value = rng.randint(1, 4)
        elif name in ("group", "accumulate"):
            value = 1
        elif name == "phase":
            value = rng.randrange(8)
        elif name in ("register", "value"):
            value = rng.randrange(4)
        elif name.endswith(("_row", "_col")):
            value = 64 * rng.randint(1, 2)
        else:
            value = 64 * rng.randrange(4)
        values[name] = value
    if form.opcode == Opcode.VTURN:
        values["src_side"] = 1 - values["side"]
    return values


def at_the_limit(rng, form, name, config):
    """Pairs (fields, bytes of memory) on the two sides of a condition's limit: one that may run, one that the condition refuses."""
    field, _, why = name.rpartition(" ")
    base = in_order(rng, form, config)

    def pair(values, changes, memory=(MEMORY, MEMORY)):
        return (values, memory[0]), (values | changes, memory[1])

    if why == "zero":
        yield pair(base | {field: 1}, {field: 0})
    elif name == "w_slot high":
        for group, most in ((1, 4), (2, 2), (4, 1)):
            yield from (pair(base | {"group": group, "w_slot": most}, {"w_slot": slot}) for slot in range(most + 1, 8))
    elif why == "high" and field.endswith("slot"):
        yield from (pair(base | {field: 4}, {field: slot}) for slot in (5, 6, 7))
    elif name == "group odd":
        # Above 4 there is no w_slot left to go with it.
        yield from (pair(base | {"group": 1, "w_slot": 1}, {"group": group}) for group in (0, 3))
    elif why == "askew":
        grain = 2 if field.endswith("_tags") else 4
        if form.opcode in (Opcode.MM, Opcode.CONV):
            grain = config.nbout_lanes
        elif f"{field}_tags" in base:
            grain = config.line_bytes
        yield from (pair(base, {field: base[field] + (1 << bit)}) for bit in range((grain - 1).bit_length()))
    elif form.opcode == Opcode.CROSET:
        settings, candidates = (Constant.SQU, Constant.MEMORY_SQU), [c for c in Constant if "CANDIDATE" in c.name]
        for register in settings if name in ("settings reserved", "metric high") else candidates:
            if name == "settings reserved":
                yield from (
                    pair({"register": register, "value": 0xFF1B}, {"value": 0xFF1B | 1 << bit}) for bit in (5, 6, 7, *range(16, 32))
                )
            elif name == "metric high":
                yield pair({"register": register, "value": 2 << 2}, {"value": 3 << 2})
            elif name == "candidate reserved":
                fits = {"register": register, "value": 0x7FFF_00F3}
                yield from (pair(fits, {"value": 0x7FFF_00F3 | 1 << bit}) for bit in (2, 3, *range(8, 16), 31))
            else:
                for size in range(3):
                    limit = 1 << 4 * size + 3
                    fits = {"register": register, "value": size | (limit - 1) << 16}
                    yield from (pair(fits, {"value": size | 1 << bit + 16}) for bit in range(4 * size + 3, 15))
    elif name == "meets itself":
        for side in (_NBIN, _SB):
            values = base | {"side": side, "src_side": side, "src": 999}
            source, dest = ranges(form.opcode.name, values, config)
            size = dest.high - dest.low
            yield pair(values | {"dest": source.high}, {"dest": source.high - 1})
            yield pair(values | {"dest": source.low - size}, {"dest": source.low - size + 1})
    elif why == "beyond":
        for _ in range(6):
            values = in_order(rng, form, config)
            (at_zero,) = (r for r in ranges(form.opcode.name, values | {field: 0}, config) if r.place == field)
            if at_zero.space == Space.MEMORY:
                end = (1 << 20) + at_zero.high
                grain = config.line_bytes if f"{field}_tags" in values else 4
                yield pair(values | {field: 1 << 20}, {}, (end, end - 1))
                yield pair(values | {field: 1 << 20}, {field: (1 << 20) + grain}, (end, end))
            else:
                limits = {Space.NBOUT: config.nbout_words, Space.NBIN: config.nbin_lines, Space.SB: config.sb_lines}
                last = limits[at_zero.space] - at_zero.high
                grain = config.nbout_lanes if form.opcode in (Opcode.MM, Opcode.CONV) and field == "dest" else 1
                last = last // grain * grain
                yield pair(values | {field: last}, {field: last + grain})


NEVER_REFUSED = {(Opcode.CONV, "a beyond")}
"""A window's lines are looked at when they are read; until then its place is all of NBin, wherever `a` is."""


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_every_condition(dut):
    """At its limit an instruction may run; one beyond, the condition alone refuses it."""
    config, rng = await start(dut)
    alone = {}
    for form in INSTRUCTIONS.values():
        of_kind = conditions(form.opcode.name, in_order(rng, form, config), config, MEMORY)
        for name, (code, _) in of_kind.items():
            if (form.opcode, name) in NEVER_REFUSED:
                continue
            alone[form.opcode, name] = 0
            for (fits, memory), (refused, less) in at_the_limit(rng, form, name, config):
                where = f"{form.opcode.name}, {name}"
                for values, bytes_, expected in ((fits, memory, ErrorCode.NONE), (refused, less, code)):
                    found = conditions(form.opcode.name, values, config, bytes_)
                    violated = [other for other, (_, met) in found.items() if not met]
                    assert violated == [name] * (expected != ErrorCode.NONE), f"{where}: {values} violates {violated}"
                    raw = int.from_bytes(isa.encode(Instruction.of(form.opcode, **values)), "little")
                    assert (await ask(dut, raw, bytes_))[0] == expected, f"{where}: {values}, memory of {bytes_}"
                alone[form.opcode, name] += 1
    idle = [where for where, count in alone.items() if not count]
    assert not idle, f"refused no instruction by themselves: {idle}"


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_every_choice(dut):
    """Each value of a field that has choices: those of the table may run, all others are refused."""
    config, rng = await start(dut)
    refused = 0
    for form in INSTRUCTIONS.values():
        for field in form.fields:
            choices = {int(choice) for choice in field.choices or ()}
            for value in range(1 << field.width) if choices else ():
                values = in_order(rng, form, config) | {field.name: value}
                if form.opcode == Opcode.VTURN:
                    values["src_side"] = 1 - values["side"]
                expected = ErrorCode.NONE if value in choices else ErrorCode.ILLEGAL_INSTRUCTION
                raw = int.from_bytes(isa.encode(Instruction.of(form.opcode, **values)), "little")
                assert (await ask(dut, raw))[0] == expected, f"{form.opcode.name}, {field.name} = {value}"
                refused += expected != ErrorCode.NONE
    assert refused == 256 - len(Constant) + 16 - len(isa.Unary)


async def ask(dut, raw, memory=MEMORY):
    dut.instruction.value, dut.memory_bytes.value, dut.start.value = raw, memory, 1
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
        assert cycles == 1 + 3 * len(ranges(form.opcode.name, values, config))
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
    bench.run(InstructionChecker(CAMBRICONQ[config]), __file__, "instruction_checker", parameters={"config": config})


@pytest.mark.parametrize("config", ["tiny", "paper"])
def test_conditions_are_the_checkers(config):
    """The hardware and the golden model name the same conditions, with the same codes; the bench goes through the latter's."""
    checker = InstructionChecker(CAMBRICONQ[config])
    Fragment.get(checker, None)
    named: dict[tuple[Opcode, str], ErrorCode] = {}
    for form in INSTRUCTIONS.values():
        values = in_order(random.Random(1), form, checker.config)
        found = conditions(form.opcode.name, values, checker.config, MEMORY)
        named |= {(form.opcode, name): code for name, (code, _) in found.items()}
    assert checker.conditions == named
