from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from nibblecore.hdl.cambriconq.program.isa import Constant, Opcode
from nibblecore.hdl.config import CAMBRICONQ, CambriconqConfig
from nibblecore.sim.compiler import products, schedule
from nibblecore.sim.compiler.compiler import SGD, Adam, AvgPool, Conv2d, Dense, MaxPool, Relu, Training
from nibblecore.sim.compiler.estimate import makespan
from nibblecore.sim.compiler.program import Program
from nibblecore.sim.compiler.schedule import WINDOW, Scheduler, scheduled
from nibblecore.sim.golden.cambriconq.control.scoreboard import Space, conflict, ranges
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport

TINY = CAMBRICONQ["tiny"]
SPILLED = CambriconqConfig(name="spilled", rows=4, cols=8, nbin_bytes=1 << 12, sb_bytes=1 << 11, nbout_bytes=1 << 13)
SIZE = 1 << 18
NETWORKS = {"mlp": (64, [Dense(24), Relu(), Dense(10)]), "cnn": ((8, 8, 1), [Conv2d(8, 3), MaxPool(2), Relu(), Dense(10)])}


def training(network, config=TINY, bits=8, batch=4, optimizer=Adam):
    inputs, layers = network
    return Training(config, inputs, layers, batch, 3 * batch, bits, optimizer(0.01), SIZE)


def random_network(rng):
    """A few layers that fit each other."""
    size, layers = int(rng.integers(5, 9)), []
    inputs = size, size, int(rng.integers(1, 4))
    for _ in range(rng.integers(0, 3)):
        if size >= 4 and rng.random() < 0.3:
            layers.append([MaxPool, AvgPool][rng.integers(2)](2))
            size //= 2
        else:
            kernel, stride = int(rng.integers(1, min(size, 3) + 1)), int(rng.integers(1, 3))
            padding = int(rng.integers(0, 3))
            layers.append(Conv2d(int(rng.integers(1, 7)), kernel, stride=stride, padding=padding))
            size = (size + 2 * padding - kernel) // stride + 1
        if rng.random() < 0.5:
            layers.append(Relu())
    if rng.random() < 0.5:
        layers += [Dense(int(rng.integers(3, 12))), Relu()]
    return inputs, [*layers, Dense(4)]


def run(t, programs, seed=0):
    """The machine after programs that find the same numbers everywhere."""
    transport = FunctionalTransport(t.config, SIZE)
    accelerator = CambriconqAccelerator(t.config, transport=transport)
    rng = np.random.default_rng(seed)
    accelerator.write_memory(t.data, rng.random((t.samples, *np.atleast_1d(t.inputs))).astype(np.float32).tobytes())
    accelerator.write_memory(t.labels, np.eye(t.classes, dtype=np.float32)[rng.integers(0, t.classes, t.samples)].tobytes())
    for (w, _, _), (rows, cols) in zip(t.weights, t.shapes, strict=True):
        accelerator.write_memory(w, (rng.standard_normal((rows, cols)) / cols**0.5).astype(np.float32).tobytes())
    for program in (t.setup(), *programs):
        accelerator.write_memory(t.program_at, program.binary())
        accelerator.run(t.program_at)
    accelerator.write_memory(t.program_at, bytes(t.program_room))
    return transport.machine


def same(a, b):
    """All of memory and of the buffers."""
    return (
        np.array_equal(a.memory, b.memory)
        and np.array_equal(a.nbout.view(np.uint32), b.nbout.view(np.uint32))
        and all(np.array_equal(x.lines, y.lines) and x.tags == y.tags for x, y in zip(a.buffers, b.buffers, strict=True))
    )


def programs(t):
    return [t.step(1, 0), t.step(2, t.batch), t.test(1, t.batch + 3)]


@pytest.mark.parametrize("config", [TINY, SPILLED, replace(TINY, name="bus", dram=None)], ids=lambda config: config.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_result_changes(name, config):
    t = training(NETWORKS[name], config)
    before = programs(t)
    after = list(map(Scheduler(config).scheduled, before))
    assert all(makespan(b, config) < makespan(a, config) for a, b in zip(before, after, strict=True))
    assert same(run(t, before), run(t, after))


@pytest.mark.parametrize("seed", range(8))
def test_no_result_of_a_random_network_changes(seed):
    rng = np.random.default_rng(seed)
    config = [TINY, SPILLED][seed % 2]
    t = training(random_network(rng), config, bits=int(rng.choice([4, 8, 12, 16])), batch=3, optimizer=SGD)
    before = programs(t)
    assert same(run(t, before), run(t, list(map(Scheduler(config).scheduled, before))))


@pytest.mark.parametrize("name", NETWORKS)
def test_bands_change_no_result(name, monkeypatch):
    """Cut as finely as can be, and not at all."""
    t, found = training(NETWORKS[name], batch=16), []
    for bands, least in ((1, 1), (100, 1)):
        monkeypatch.setattr(products, "_BANDS", bands)
        monkeypatch.setattr(products, "_BAND", least)
        cut = programs(t)
        found.append((len(cut[0].instructions), run(t, cut).memory))
    assert found[0][0] + 10 < found[1][0]
    assert np.array_equal(found[0][1], found[1][1])


def test_bands_are_finished_beside_the_rest(monkeypatch):
    t = training((64, [Dense(64), Relu(), Dense(10)]), batch=32)
    cut = scheduled(t.step(1, 0), TINY)
    opcodes = [instruction.opcode for instruction in cut.instructions]
    # An update of the first layer's weights before the last product.
    assert opcodes.index(Opcode.WGSTORE) < len(opcodes) - opcodes[::-1].index(Opcode.MM) - 1
    monkeypatch.setattr(products, "_BANDS", 1)
    assert makespan(cut, TINY) < 0.92 * makespan(scheduled(t.step(1, 0), TINY), TINY)


def must_keep_order(a, b, config):
    """By the scoreboard, and by what each constant is for."""
    if Opcode.HALT in (a.opcode, b.opcode):
        return True
    users = [
        (Constant.C1, (Opcode.WGSTORE,)),
        (Constant.SQU, (Opcode.QSTORE, Opcode.QMOVE)),
        (Constant.MEMORY_SQU, (Opcode.QLOAD,)),
    ]
    for one, other in ((a, b), (b, a)):
        if one.opcode == Opcode.CROSET:
            first, opcodes = [user for user in users if user[0] <= one.register][-1]
            if other.opcode in opcodes or (
                other.opcode == Opcode.CROSET and (other.register >= first and other.register < first + 16)
            ):
                return True
    return conflict(*(ranges(each.opcode.name, each.fields, config) for each in (a, b)))


def constants_between():
    """Settings change between quantizations and updates of the same program."""
    program, move = Program(), {"slot": 2, "rows": 8, "cols": 16}
    for value in range(3):
        for register in (Constant.SQU_CANDIDATE0, Constant.MEMORY_SQU_CANDIDATE0, Constant.C5, Constant.OPTIMIZER):
            program.emit(Opcode.CROSET, register=register, value=value)
        program.emit(Opcode.QMOVE, **move, dest=32 * value)
        program.emit(Opcode.QLOAD, **move, dest=32 * value + 256, src=4096)
        program.emit(Opcode.QSTORE, **move, dest=4096 + 1024 * value, dest_tags=8192 + 64 * value, src=100)
        program.emit(Opcode.WGSTORE, rows=1, cols=4, w=1 << 14, m=1 << 15, v=1 << 16, src=200, mem_row=16)
    program.emit(Opcode.HALT)
    return program


@pytest.mark.parametrize("name", [*NETWORKS, "constants"])
def test_what_depends_keeps_its_order(name):
    program = training(NETWORKS[name]).step(1, 0) if name in NETWORKS else constants_between()
    found = scheduled(program, TINY).instructions
    assert Counter(map(str, found)) == Counter(map(str, program.instructions)) and found[-1].opcode == Opcode.HALT
    assert found != program.instructions
    place = {id(instruction): number for number, instruction in enumerate(found)}
    for a, b in combinations(program.instructions, 2):
        assert place[id(a)] < place[id(b)] or not must_keep_order(a, b, TINY), (a, b)


def test_nothing_goes_far():
    program = training(NETWORKS["cnn"]).step(1, 0)
    where = {id(instruction): number for number, instruction in enumerate(program.instructions)}
    moves = [where[id(instruction)] - number for number, instruction in enumerate(scheduled(program, TINY).instructions)]
    assert 0 < max(moves) < WINDOW


def waiting_in(space):
    """The first vector work waits for a load; what is behind it does not, but for what both touch in one space."""
    program = Program()
    vectors, words = {"slot": 2, "rows": 2, "cols": 16}, {"rows": 1, "cols": 32}
    constants = {4: Constant.C5, 5: Constant.SQU_CANDIDATE0, 6: Constant.MEMORY_SQU_CANDIDATE0}
    product = {"group": 1, "rows": 1, "cols": 1, "dest_row": 2, "a_slot": 2, "w_slot": 2, "vectors": 1}

    def slow(at):
        program.emit(Opcode.SLOAD, rows=1, cols=400, dest=at, dest_col=1, src=1 << 15)

    if space == Space.MEMORY:
        slow(0)
        program.emit(Opcode.SSTORE, **words, dest=1 << 14, src_col=1)
        program.emit(Opcode.QSTORE, **vectors, dest=1 << 14, dest_tags=1 << 13, src=1000, src_col=1)
    elif space == Space.NBOUT:
        slow(0)
        program.emit(Opcode.VFMUL, **words, dest=1000, dest_col=1, a_col=1)
        program.emit(Opcode.QMOVE, **vectors, src=1000, src_row=16, src_col=1)
    elif space in (Space.NBIN, Space.SB):
        slow(0)
        program.emit(Opcode.QMOVE, **vectors, side=space == Space.SB, src_row=16, src_col=1)
        program.emit(Opcode.MM, **product, dest=1000)
    else:
        slow(0)
        if space == 4:
            program.emit(Opcode.WGSTORE, rows=1, cols=4, w=1 << 14, m=1 << 13, v=1 << 12)
        elif space == 5:
            program.emit(Opcode.QMOVE, **vectors, src_row=16, src_col=1)
        else:
            program.emit(Opcode.SSTORE, **words, dest=1 << 14, src_col=1)
            program.emit(Opcode.QLOAD, **vectors, src=1 << 14, src_row=64, src_col=4)
        program.emit(Opcode.CROSET, register=constants[space], value=1)
    slow(2000)
    program.emit(Opcode.HALT)
    return program


@pytest.mark.parametrize("space", [*Space, 4, 5, 6], ids=lambda space: f"space {int(space)}")
def test_a_conflict_left_out_is_noticed(space, monkeypatch):
    """Without the places of one space what waits is exchanged with what depends on it; with them it is not."""
    touched = schedule._touched

    def exchanged():
        found = scheduled(waiting_in(space), TINY).instructions
        place = {str(instruction): number for number, instruction in enumerate(found)}
        return [
            (a.opcode.name, b.opcode.name)
            for a, b in combinations(waiting_in(space).instructions, 2)
            if place[str(a)] > place[str(b)] and must_keep_order(a, b, TINY)
        ]

    assert not exchanged()
    monkeypatch.setattr(schedule, "_touched", lambda *of: [place for place in touched(*of) if place[0] != space])
    monkeypatch.setattr(schedule, "makespan", lambda program, config: int(program == waiting_in(space)))
    assert exchanged()


def test_results_without_a_space_differ(monkeypatch):
    t, touched = training(NETWORKS["mlp"]), schedule._touched
    wanted = run(t, [t.step(1, 0)])
    monkeypatch.setattr(schedule, "_touched", lambda *of: [place for place in touched(*of) if place[0] != Space.NBOUT])
    assert not same(wanted, run(t, [scheduled(t.step(1, 0), TINY)]))


def pairs_of_sums(*starts):
    """Two loads, each with a sum of what it brings."""
    program = Program()
    for at, start in enumerate(starts):
        program.emit(Opcode.SLOAD, rows=1, cols=200, dest=1000 * at, dest_row=200, dest_col=1, src=4096 * (at + 1) + 4, src_row=800)
        program.emit(Opcode.VFMUL, rows=1, cols=200, dest=start, dest_col=1, a=1000 * at, a_col=1)
    program.emit(Opcode.HALT)
    return program


def test_an_order_is_found_once(monkeypatch):
    """Other addresses are no other program, unless the order is illegal with them."""
    scheduler = Scheduler(TINY)
    program = pairs_of_sums(0, 1000)
    assert [each.opcode for each in scheduler.scheduled(program).instructions][:2] == [Opcode.SLOAD, Opcode.SLOAD]
    searched, search = [], schedule._searched

    def counted(*of):
        searched.append(of)
        return search(*of)

    monkeypatch.setattr(schedule, "_searched", counted)
    assert scheduler.scheduled(pairs_of_sums(400, 1400)).instructions[1].dest == 1000 and not searched
    # The first sum goes where the second load does.
    assert [each.opcode for each in scheduler.scheduled(pairs_of_sums(1100, 2000)).instructions][:2] == [Opcode.SLOAD, Opcode.VFMUL]
    assert searched


def test_a_program_that_cannot_be_better_stays():
    program = Program()
    for at in (0, 1, 2):
        program.emit(Opcode.VFMUL, rows=1, cols=9, dest=100 * at + 100, dest_col=1, a=100 * at, a_col=1)
    program.emit(Opcode.HALT)
    assert scheduled(program, TINY) == program and scheduled(Program(), TINY) == Program()
