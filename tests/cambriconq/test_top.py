"""The whole machine: programs in memory, started over its registers, against the functional model."""

import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from nibblecore.hdl.bus.axi4 import Response
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, Constant, Instruction, Opcode, encode
from nibblecore.hdl.cambriconq.registers import PHASES, REGISTERS
from nibblecore.hdl.config import CAMBRICONQ, CambriconqConfig, DramConfig
from nibblecore.hdl.config import TINY as LTOAQ_TINY
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator, ProgramError
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport
from nibblecore.sim.regress.cambriconq import MEMORY_BYTES, PROGRAM, Pair, run_one

TINY = CAMBRICONQ["tiny"]
ODD = CambriconqConfig(
    name="odd",
    rows=32,
    cols=16,
    nbin_bytes=1 << 13,
    sb_bytes=1 << 14,
    nbout_bytes=1 << 15,
    dram=DramConfig(banks=16, rows=1 << 10, columns=128, rcd=5, rp=4, ras=11, wr=6),
    id_bits=3,
)
"""No two sizes are equal; `TINY` has as many words in a row of NBout as in a beat, and buffers of one size."""
OFFSET = {register.name: register.offset for register in REGISTERS}
HALT = Instruction.of(Opcode.HALT)
LOAD = Instruction.of(Opcode.SLOAD, rows=4, cols=8, dest=64, dest_row=8, dest_col=1, src=256, src_row=64)
STORE = Instruction.of(Opcode.SSTORE, rows=4, cols=8, dest=4096, dest_row=32, src=64, src_row=8, src_col=1)


@pytest.fixture(scope="module")
def odd():
    with Pair(ODD, seed=1, stall=0.1) as pair:
        yield pair


@pytest.fixture(scope="module")
def pair():
    with Pair(TINY, seed=3, stall=0.1) as pair:
        yield pair


def program(*instructions):
    return b"".join(map(encode, (*instructions, HALT)))


def squ(bits, base=Constant.SQU):
    return (
        Instruction.of(Opcode.CROSET, register=base, value=0),
        Instruction.of(Opcode.CROSET, register=base + 1, value=(bits // 4 - 1) | ((1 << bits - 1) - 1) << 16),
    )


def changed(instruction, **fields):
    return replace(instruction, fields=instruction.fields | fields)


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_random_programs(stall):
    counts = Counter[str]()
    first = int(os.environ.get("SEED", "5000"))
    with Pair(TINY, seed=1, stall=stall) as pair:
        for seed in range(first, first + 30):
            run_one(pair, seed, counts)
    assert {"MM", "CONV", "QLOAD", "QMOVE", "QSTORE", "VLOAD", "SSTORE", "WGSTORE", "VFUN"} <= counts.keys()


def test_random_programs_where_no_two_sizes_are_equal(odd):
    counts = Counter[str]()
    for seed in range(5000, 5030):
        run_one(odd, seed, counts)
    assert {"MM", "CONV", "QLOAD", "QMOVE", "QSTORE", "VLOAD", "VSTORE", "VTURN", "SSTORE", "WGSTORE", "VFUN"} <= counts.keys()


@pytest.mark.parametrize("name", ["nbin", "sb", "nbout"])
def test_a_buffer_has_all_its_places(odd, name):
    """At every power of two and at the end lies what was put there, whatever came to the others."""
    odd.fill(np.random.default_rng(17))
    if name == "nbout":
        size = ODD.nbout_words
        places = [0, *(1 << bit for bit in range(4, size.bit_length() - 1)), size - 16]
        row = {"rows": 1, "cols": 16}
        loads = [Instruction.of(Opcode.SLOAD, dest=at, dest_col=1, src=64 * n, **row) for n, at in enumerate(places)]
        stores = [Instruction.of(Opcode.SSTORE, src=at, src_col=1, dest=16384 + 64 * n, **row) for n, at in enumerate(places)]
        assert odd.run_program(program(*loads, *stores)) == ErrorCode.NONE
        return
    side, size = (0, ODD.nbin_lines) if name == "nbin" else (1, ODD.sb_lines)
    places = [0, *(1 << bit for bit in range(2, size.bit_length() - 1)), size - 2]
    common = {"side": side, "slot": 2}
    loads = [
        Instruction.of(Opcode.QLOAD, dest=at, rows=1, cols=16, src=64 * n, src_row=64, src_col=4, **common)
        for n, at in enumerate(places)
    ]
    stores = [
        Instruction.of(Opcode.VSTORE, src=at, vectors=1, dest=16384 + 64 * n, dest_tags=32768 + 2 * n, **common)
        for n, at in enumerate(places)
    ]
    assert odd.run_program(program(*squ(8), *loads, *stores)) == ErrorCode.NONE


@pytest.mark.skipif(os.environ.get("LONG") != "1", reason="another machine to build")
def test_random_programs_with_the_update_over_the_bus():
    counts = Counter[str]()
    with Pair(CAMBRICONQ["tiny_bus"], seed=1, stall=0.1) as pair:
        for seed in range(200):
            run_one(pair, seed, counts)
    assert counts["WGSTORE"] > 20


def test_a_difference_is_noticed(pair):
    pair.fill(np.random.default_rng(1))
    pair.model.transport.memory[260] ^= 1
    with pytest.raises(
        Mismatch, match=r"^memory: the word at 0x104 is 0x\w+, expected 0x\w+ \(1 of 65536 words of memory differ\)$"
    ):
        pair.run_program(program())
    pair.fill(np.random.default_rng(1))
    pair.model.transport.memory[260] ^= 1
    with pytest.raises(Mismatch, match=r"\(2 of 65536 words"):
        pair.run_program(program(LOAD, STORE))


REFUSED = {
    ErrorCode.ZERO_SIZE: changed(LOAD, rows=0),
    ErrorCode.MISALIGNED: changed(LOAD, src=258),
    ErrorCode.MEMORY_RANGE: changed(LOAD, src=MEMORY_BYTES - 4),
    ErrorCode.BUFFER_RANGE: changed(LOAD, dest=TINY.nbout_words),
    ErrorCode.BAD_FORMAT: Instruction.of(Opcode.QMOVE, slot=1, rows=1, cols=16, src=64, src_row=1, src_col=1),
    ErrorCode.NO_TAG: Instruction.of(Opcode.VSTORE, slot=2, vectors=3, src=100, dest=4096, dest_tags=8192),
    ErrorCode.BANK_CONFLICT: Instruction.of(
        Opcode.WGSTORE, rows=1, cols=1, w=1024, m=2048, v=4096, src=64, src_row=1, src_col=1, mem_row=4
    ),
}


@pytest.mark.parametrize("code", REFUSED, ids=lambda code: code.name)
def test_refused_with_a_code_and_nothing_moved(pair, code):
    pair.fill(np.random.default_rng(2))
    assert pair.run_program(program(*squ(8), LOAD, REFUSED[code], STORE)) == code
    # What comes next runs as if nothing had been.
    assert pair.run_program(program(LOAD, STORE)) == ErrorCode.NONE


def test_operands_that_do_not_go_together(pair):
    """Vectors of two rows with tags that differ, summed as a group."""
    pair.fill(np.random.default_rng(3))
    sets = (*squ(4), Instruction.of(Opcode.CROSET, register=Constant.SQU, value=1 << 4))
    other = Instruction.of(Opcode.CROSET, register=Constant.SQU, value=1 << 4 | 3 << 8)

    def move(side, dest):
        return Instruction.of(Opcode.QMOVE, side=side, slot=1, rows=1, cols=16, dest=dest, src=64, src_row=1, src_col=1)

    moves = (move(0, 0), move(1, 0), move(1, 1), other, move(0, 1))
    product = Instruction.of(Opcode.MM, group=2, rows=1, cols=1, dest=128, a=0, w=0, a_slot=1, w_slot=1, vectors=2)
    assert pair.run_program(program(*sets, LOAD, *moves, product)) == ErrorCode.TAG_MISMATCH
    assert pair.run_program(program(changed(product, group=1), changed(STORE, rows=1, cols=1, src=128))) == ErrorCode.NONE


def test_what_follows_the_shortest_product_finds_its_results(pair):
    """One pass of one line, read by each kind of instruction right behind it."""
    loads = [
        Instruction.of(Opcode.QLOAD, side=side, slot=1, rows=8, cols=16, src=4096 + 1024 * side, src_row=64, src_col=4)
        for side in (0, 1)
    ]
    product = Instruction.of(
        Opcode.MM, group=1, rows=1, cols=8, dest=64, dest_row=8, a_row=1, w_row=1, a_slot=1, w_slot=1, vectors=1
    )
    after = (
        Instruction.of(Opcode.VFUN, rows=1, cols=8, dest=128, dest_row=8, dest_col=1, a=64, a_row=8, a_col=1),
        Instruction.of(Opcode.QMOVE, slot=1, rows=1, cols=8, dest=64, src=64, src_row=8, src_col=1),
        changed(product, accumulate=1),
    )
    kept = [
        Instruction.of(Opcode.VSTORE, slot=1, vectors=1, src=64, dest=8192, dest_tags=9000),
        changed(STORE, rows=1, src=128, src_row=8),
        changed(STORE, rows=1),
    ]
    settings = (*squ(4), *squ(4, Constant.MEMORY_SQU))
    clear = changed(STORE, rows=1, cols=8, dest=5000)
    for each in (*after, clear):
        pair.fill(np.random.default_rng(13))
        shown = kept if each is after[1] else kept[1:] if each is after[0] else kept[2:]
        fill = Instruction.of(Opcode.SLOAD, rows=1, cols=256, dest_row=256, dest_col=1, src=256, src_row=1024)
        assert pair.run_program(program(*settings, fill, *loads, product, each, *shown)) == ErrorCode.NONE


@pytest.mark.parametrize("last", [0x0100, 0x0400])
def test_a_tag_in_memory_that_does_not_fit(pair, last):
    """The last of three says 8 bits, where there is a line for four, or has a bit that no tag has: none of the three is loaded."""
    pair.fill(np.random.default_rng(12))
    filled = Instruction.of(Opcode.QLOAD, slot=1, rows=3, cols=16, dest=8, src=256, src_row=64, src_col=4)
    load = Instruction.of(Opcode.VLOAD, slot=1, vectors=3, dest=8, src=16384, src_tags=8192)
    stored = Instruction.of(Opcode.VSTORE, slot=1, vectors=3, src=8, dest=4096, dest_tags=8448)
    tags = np.array([0, 0x00F0, last], "<u2").tobytes()
    pair.write_memory(8192, tags)
    assert pair.run_program(program(*squ(4, Constant.MEMORY_SQU), filled, load)) == ErrorCode.BAD_FORMAT
    assert pair.run_program(program(stored)) == ErrorCode.NONE


WINDOWS = Instruction.of(
    Opcode.CONV,
    group=1,
    rows=2,
    cols=1,
    dest=64,
    dest_row=2,
    a=2,
    a_row=2,
    a_slot=2,
    w_slot=2,
    vectors=1,
    out_width=1,
    stride=1,
    kernel_rows=1,
    kernel_cols=1,
)


@pytest.mark.parametrize(
    "fields",
    [
        {"a_row": 2**32 - 2},
        {"a_row": 2**32 - 2, "rows": 1, "kernel_rows": 2},
        {"a_row": 0, "a_col": 2**32 - 2, "rows": 1, "kernel_cols": 2},
        {"a_row": 0, "a_col": 2**32 - 2, "out_width": 2},
        {"a_row": 2**31, "stride": 2},
        {"a_row": 0x55555556, "stride": 3},
        {"a_row": 0, "a_col": 2**31, "stride": 2, "out_width": 2},
        {"a": 2**32 - 2},
        {"a": 0, "a_row": TINY.nbin_lines},
    ],
)
def test_windows_do_not_wrap_round(pair, fields):
    """Back to a line that is there."""
    pair.fill(np.random.default_rng(15))
    moves = [Instruction.of(Opcode.QMOVE, side=side, slot=2, rows=4, cols=16, src=64, src_row=8, src_col=1) for side in (0, 1)]
    before = (*squ(8), changed(LOAD, rows=8), *moves)
    assert pair.run_program(program(*before, changed(WINDOWS, **fields))) == ErrorCode.BUFFER_RANGE
    assert pair.run_program(program(*before, WINDOWS, changed(STORE, rows=1, cols=4))) == ErrorCode.NONE


def test_eight_bits_after_a_reset(pair):
    pair.fill(np.random.default_rng(9))
    move = Instruction.of(Opcode.QMOVE, slot=2, rows=4, cols=8, dest=8, src=64, src_row=8, src_col=1)
    load = Instruction.of(Opcode.QLOAD, side=1, slot=2, rows=4, cols=8, src=256, src_row=64, src_col=4)
    stores = [
        Instruction.of(
            Opcode.VSTORE, side=side, slot=2, vectors=4, src=8 - 8 * side, dest=4096 + 256 * side, dest_tags=8192 + 8 * side
        )
        for side in (0, 1)
    ]
    assert pair.run_program(program(LOAD, move, load, *stores)) == ErrorCode.NONE
    assert pair.accelerator.read_memory(8193, 1)[0] & 3 == 1


def test_a_program_that_is_not_there(pair):
    pair.fill(np.random.default_rng(4))
    for entry, code in ((32, ErrorCode.MISALIGNED), (MEMORY_BYTES, ErrorCode.MEMORY_RANGE)):
        with pytest.raises(ProgramError) as error:
            pair.accelerator.run(entry)
        assert (error.value.code, error.value.index) == (code, 0)
    raw = bytearray(program(LOAD))
    raw[63] = 1
    assert pair.run_program(bytes(raw)) == ErrorCode.ILLEGAL_INSTRUCTION


def test_refused_by_the_bus(pair):
    """The window reaches beyond memory, which answers DECERR."""
    pair.fill(np.random.default_rng(5))
    hardware = pair.accelerator
    hardware.transport.write_register(OFFSET["MEMORY_LAST"], 0xFFFFFFFF)
    beyond = 1 << 24
    for wrong, code in ((changed(LOAD, src=beyond), ErrorCode.BUS_READ), (changed(STORE, dest=beyond), ErrorCode.BUS_WRITE)):
        hardware.write_memory(PROGRAM, program(LOAD, wrong, STORE))
        with pytest.raises(ProgramError) as error:
            hardware.run(PROGRAM)
        assert (error.value.code, error.value.index) == (code, 1)
    hardware.write_memory(PROGRAM, program(LOAD, STORE))
    hardware.run(PROGRAM)
    assert hardware.read_memory(4096, 32) == hardware.read_memory(256, 32)


def beats(address, size=TINY.bus_bytes):
    """Addresses of all beats with one of these bytes."""
    return [*range(address & -TINY.bus_bytes, address + size, TINY.bus_bytes)]


ROWS = {"slot": 1, "rows": 4, "cols": 16}
TAGS = 8190
"""A multiple of 2 at the end of a beat."""
MOVED = [
    (changed(LOAD, src=1024, dest=2048), [beat for row in range(4) for beat in beats(1024 + 64 * row, 32)]),
    (Instruction.of(Opcode.QLOAD, dest=64, src=2048, src_row=64, src_col=4, **ROWS), beats(2048, 256)),
    (Instruction.of(Opcode.VLOAD, slot=1, vectors=3, dest=64, src=16384, src_tags=TAGS), beats(16384, 24) + beats(TAGS, 6)),
    (STORE, beats(4096, 128)),
    (Instruction.of(Opcode.VSTORE, slot=1, vectors=3, dest=4096, dest_tags=TAGS), beats(4096, 24) + beats(TAGS, 6)),
    (
        Instruction.of(Opcode.QSTORE, dest=4096, dest_tags=TAGS, src=64, src_row=8, src_col=1, **ROWS | {"cols": 8}),
        beats(4096, 32) + beats(TAGS, 8),
    ),
]
"""Instructions that use the bus, and which beats they move."""


@pytest.mark.parametrize("instruction, moved", MOVED, ids=lambda value: value.opcode.name if isinstance(value, Instruction) else "")
def test_an_answer_other_than_okay_to_any_beat_ends_the_program(pair, instruction, moved):
    """One beat of all of an instruction's, in turn: EXOKAY too, which nobody asked for. The instruction has run."""
    pair.fill(np.random.default_rng(16))
    pair.write_memory(TAGS, np.full(3, 0x00F0, "<u2").tobytes())
    hardware, simulation = pair.accelerator, pair.accelerator.transport
    filled = Instruction.of(Opcode.QLOAD, src=12288, src_row=64, src_col=4, **ROWS)
    before = (*squ(4), *squ(4, Constant.MEMORY_SQU), LOAD, filled)
    pair.write_memory(PROGRAM, program(*before, instruction))
    image = pair.read_memory(0, MEMORY_BYTES)
    hardware.run(PROGRAM)
    expected = pair.read_memory(0, MEMORY_BYTES)
    code = ErrorCode.BUS_READ if expected == image else ErrorCode.BUS_WRITE
    assert code == (ErrorCode.BUS_READ if instruction.opcode.name.endswith("LOAD") else ErrorCode.BUS_WRITE)
    for address in moved:
        for response in (Response.EXOKAY, Response.SLVERR, Response.DECERR):
            hardware.write_memory(0, image)
            simulation.answer(address, response)
            with pytest.raises(ProgramError) as error:
                hardware.run(PROGRAM)
            simulation.answer(address, Response.OKAY)
            assert (error.value.code, error.value.index) == (code, len(before)), f"{response.name} at {address:#x}"
            assert hardware.read_memory(0, MEMORY_BYTES) == expected, f"{response.name} at {address:#x}"
    pair.fill(np.random.default_rng(16))
    assert pair.run_program(program(LOAD, STORE)) == ErrorCode.NONE


def test_an_answer_other_than_okay_to_any_beat_of_the_program(pair):
    """It counts where the instruction would have been started, HALT too; what is fetched beyond HALT does not count."""
    pair.fill(np.random.default_rng(17))
    hardware, simulation = pair.accelerator, pair.accelerator.transport
    hardware.write_memory(PROGRAM, program(LOAD, STORE))
    for address in beats(PROGRAM, 5 * INSTRUCTION_BYTES):
        for response in (Response.EXOKAY, Response.SLVERR, Response.DECERR):
            simulation.answer(address, response)
            index = (address - PROGRAM) // INSTRUCTION_BYTES
            if index < 3:
                with pytest.raises(ProgramError) as error:
                    hardware.run(PROGRAM)
                assert (error.value.code, error.value.index) == (ErrorCode.BUS_READ, index), f"{response.name} at {address:#x}"
            else:
                hardware.run(PROGRAM)
            simulation.answer(address, Response.OKAY)
    assert pair.run_program(program(LOAD, STORE)) == ErrorCode.NONE


def test_stop_and_a_second_start(pair):
    pair.fill(np.random.default_rng(6))
    hardware, transport = pair.accelerator, pair.accelerator.transport
    hardware.write_memory(PROGRAM, program(*[LOAD] * 50, STORE))
    before = hardware.read_memory(4096, 128)
    transport.write_register(OFFSET["START"], PROGRAM)
    transport.write_register(OFFSET["START"], PROGRAM)
    assert hardware.flags() == {"busy": 1, "nan": 0, "infinity": 0, "dropped": 1}
    transport.run(300)
    transport.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(stop=1))
    transport.wait(2000)
    assert hardware.flags()["busy"] == 0 and transport.read_register(OFFSET["ERROR"]) == 0
    assert 0 < transport.read_register(OFFSET["INDEX"]) < 50
    assert hardware.read_memory(4096, 128) == before
    hardware.clear_flags()
    assert hardware.flags()["dropped"] == 0


def test_what_another_driver_left_at_work_is_stopped(pair):
    pair.fill(np.random.default_rng(6))
    transport = pair.accelerator.transport
    pair.write_memory(PROGRAM, program(*[LOAD] * 50))
    transport.write_register(OFFSET["START"], PROGRAM)
    assert pair.accelerator.flags()["busy"]
    second = CambriconqAccelerator(pair.accelerator.config, transport=transport)
    assert not second.flags()["busy"] and transport.read_register(OFFSET["INDEX"]) < 50


def test_a_program_that_takes_too_long_is_stopped(pair):
    pair.fill(np.random.default_rng(14))
    hardware, before = pair.accelerator, pair.accelerator.timeout_cycles
    pair.write_memory(PROGRAM, program(*[LOAD] * 100))
    hardware.timeout_cycles = 1000
    with pytest.raises(
        TimeoutError, match=r"program at 0x3c000 ran for over 1,000 cycles; stopped before instruction ([1-9]|[1-4]\d)$"
    ):
        hardware.run(PROGRAM)
    hardware.timeout_cycles = before
    assert hardware.flags()["busy"] == 0
    assert pair.run_program(program(LOAD, STORE)) == ErrorCode.NONE


class Alone:
    """The machine on a bus without stalls, which does the same in every run of LOAD and STORE, and in which cycles that is.

    Cycles count from the answer to the write of START. A write that begins in a cycle acts at the end of the next; CONTROL and START are
    seen in the one after that.
    """

    def __init__(self, hardware):
        self.hardware, self.transport = hardware, hardware.transport
        hardware.write_memory(PROGRAM, program(LOAD, STORE))
        self.ends = self.run({})
        assert self.run({}) == self.ends
        self.busy = self["CYCLES"]

    def __getitem__(self, name):
        return self.transport.read_register(OFFSET[name])

    def run(self, writes):
        """One program, and a register's word written in each cycle that is named; returns the cycle in which the interrupt rose."""
        self.hardware.clear_flags()
        self.transport.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(clear_counters=1))
        self.transport.write_register(OFFSET["IRQ_STATUS"], 1)
        self.transport.write_register(OFFSET["START"], PROGRAM)
        begun = self.transport.cycles
        for cycle, (name, word) in writes.items():
            self.transport.run(cycle - (self.transport.cycles - begun))
            self.transport.write_register(OFFSET[name], word)
        if not writes:
            self.transport.wait(10_000)
        return self.transport.cycles - begun

    def finish(self):
        """Time enough for a program that was started last."""
        self.transport.run(self.ends + 10)


@pytest.fixture(scope="module")
def alone():
    with CambriconqAccelerator(TINY, memory_size=MEMORY_BYTES) as hardware:
        yield Alone(hardware)


def test_an_interrupt_beats_its_clear(alone):
    """What is written before it is set, or in that cycle, does not clear it; the cycle is that before the pin rises."""
    last_to_lose = alone.ends - 2
    for cycle in range(last_to_lose - 6, last_to_lose + 7):
        alone.run({cycle: ("IRQ_STATUS", 1)})
        alone.finish()
        assert alone["IRQ_STATUS"] == (cycle <= last_to_lose), f"cleared {cycle - last_to_lose} cycles from the last that loses"


def test_start_in_every_cycle_round_the_end(alone):
    """While the program runs it is dropped, and STATUS says so; from the cycle in which none runs on it runs another, whole."""
    last_dropped = alone.ends - 4
    for cycle in range(last_dropped - 6, last_dropped + 7):
        alone.run({cycle: ("START", PROGRAM)})
        alone.finish()
        dropped = cycle <= last_dropped
        assert alone.hardware.flags() == {"busy": 0, "nan": 0, "infinity": 0, "dropped": dropped}, f"{cycle - last_dropped}"
        assert alone["CYCLES"] == alone.busy * (1 if dropped else 2), f"{cycle - last_dropped} cycles from the last that is dropped"
        assert (alone["STARTED"], alone["INDEX"], alone["ERROR"], alone["IRQ_STATUS"]) == (2, 2, 0, 1)


def test_counters_cleared_in_every_cycle(alone):
    """They have what was counted after the clear, of its own cycle nothing."""
    last_busy = alone.ends - 2
    for cycle in range(last_busy + 3):
        alone.run({cycle: ("CONTROL", REGISTERS["CONTROL"].pack(clear_counters=1))})
        alone.finish()
        counted = max(0, last_busy - (cycle + 2))
        assert alone["CYCLES"] == sum(alone[f"PHASE{n}"] for n in range(PHASES)) == counted, f"cleared in cycle {cycle}"
        assert alone["IRQ_STATUS"] == 1, f"no interrupt, cleared in cycle {cycle}"


@pytest.mark.parametrize("cycles", [60, 150, 400, 900])
def test_reset_in_the_middle(pair, cycles):
    pair.fill(np.random.default_rng(cycles))
    transport = pair.accelerator.transport
    pair.accelerator.write_memory(
        PROGRAM, program(*squ(8), LOAD, changed(REFUSED[ErrorCode.BAD_FORMAT], slot=2), STORE, *[LOAD] * 20)
    )
    transport.write_register(OFFSET["START"], PROGRAM)
    transport.run(cycles)
    pair.fill(np.random.default_rng(7))
    assert pair.run_program(program(*squ(8), LOAD, changed(REFUSED[ErrorCode.BAD_FORMAT], slot=2), STORE)) == ErrorCode.NONE


def test_cycles_are_counted_by_phase(pair):
    pair.fill(np.random.default_rng(8))
    hardware = pair.accelerator
    before = hardware.counters()
    loads = [changed(LOAD, phase=3)] * 3
    assert pair.run_program(program(*loads, changed(STORE, phase=5))) == ErrorCode.NONE
    counted = {name: count - before[name] for name, count in hardware.counters().items()}
    passed = [counted[f"phase{n}"] for n in range(PHASES)]
    assert sum(passed) == counted["cycles"]
    assert passed[3] > 96 and 32 < passed[5] < passed[3] and not any(passed[n] for n in (1, 2, 4, 6, 7))


def quantized(side, dest, rows=8, src=1 << 14):
    return Instruction.of(Opcode.QLOAD, side=side, slot=2, rows=rows, cols=64, dest=dest, src=src, src_row=256, src_col=4)


def elementwise(dest, a, rows=8):
    return Instruction.of(Opcode.VFUN, function=2, rows=rows, cols=64, dest=dest, dest_row=64, dest_col=1, a=a, a_row=64, a_col=1)


def test_lanes_work_side_by_side(pair):
    """Three instructions that touch nothing in common take hardly longer than the longest."""
    fill = Instruction.of(Opcode.SLOAD, rows=8, cols=64, dest_row=64, dest_col=1, src_row=256)
    three = (
        quantized(0, 0),
        elementwise(2048, 0),
        Instruction.of(Opcode.SSTORE, rows=8, cols=64, dest=4096, dest_row=256, src=0, src_row=64, src_col=1),
    )
    taken = []
    for work in ((), *((one,) for one in three), three):
        pair.fill(np.random.default_rng(10))
        # Until the buffers' tags have been swept loads wait.
        pair.accelerator.transport.run(TINY.nbin_lines)
        before = pair.counters()["cycles"]
        assert pair.run_program(program(fill, *work)) == ErrorCode.NONE
        taken.append(pair.counters()["cycles"] - before)
    alone = [cycles - taken[0] for cycles in taken[1:4]]
    assert taken[4] - taken[0] < max(alone) + 60 < 0.6 * sum(alone)


def test_what_has_been_started_runs_although_an_earlier_one_fails(pair):
    """A product meets tags that differ at its very end, when loads, arithmetic and stores behind it have long ended."""
    pair.fill(np.random.default_rng(11))
    fill = Instruction.of(Opcode.SLOAD, rows=16, cols=64, dest_row=64, dest_col=1, src_row=256)
    other = (Instruction.of(Opcode.CROSET, register=Constant.MEMORY_SQU, value=1 << 4 | 3 << 8), quantized(0, 128 - 8, rows=1))
    product = Instruction.of(
        Opcode.MM, group=2, rows=16, cols=16, dest=4096, dest_row=16, a=0, a_row=8, w=0, w_row=8, a_slot=2, w_slot=2, vectors=4
    )
    # The last row's second half has another tag than its first.
    narrow = changed(other[1], cols=16, dest=126)
    after = (
        changed(STORE, rows=8, cols=64, dest_row=256, src_row=64, src=0),
        quantized(1, 512),
        changed(LOAD, dest=8000),
        quantized(1, 640, rows=1),
    )
    raw = program(fill, quantized(0, 0, rows=16), quantized(1, 0, rows=16), other[0], narrow, product, *after)
    assert pair.run_program(raw) == ErrorCode.TAG_MISMATCH
    started = pair.accelerator.transport.read_register(OFFSET["STARTED"])
    assert pair.accelerator.transport.read_register(OFFSET["INDEX"]) == 5 and started >= 8
    assert pair.accelerator.read_memory(4096, 2048) == pair.accelerator.read_memory(0, 2048)


def test_transposed_in_a_buffer(pair):
    pair.fill(np.random.default_rng(12))
    turn = Instruction.of(Opcode.VTURN, side=1, src_side=0, slot=2, rows=8, cols=40, dest=600, dest_row=2, src=0, src_row=8)
    show = Instruction.of(Opcode.VSTORE, side=1, slot=2, vectors=40, src=600, dest=4096, dest_tags=8192)
    assert pair.run_program(program(quantized(0, 0), turn, show)) == ErrorCode.NONE
    assert pair.run_program(program(changed(turn, src=512), show)) == ErrorCode.NO_TAG


def test_another_machine_is_noticed(pair):
    with pytest.raises(RuntimeError, match="no Cambricon-Q accelerator: register ID is 0x4e420001"):
        CambriconqAccelerator(TINY, transport=FunctionalTransport(LTOAQ_TINY))
    with pytest.raises(RuntimeError, match="nbin is 14, not 15"):
        CambriconqAccelerator(replace(TINY, nbin_bytes=1 << 15), transport=pair.accelerator.transport)
