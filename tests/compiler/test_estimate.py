from itertools import groupby, pairwise

import pytest
from nibblecore.hdl.cambriconq.program.isa import Constant, Opcode
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.compiler.asm import assemble
from nibblecore.sim.compiler.compiler import Adam, Conv2d, Dense, MaxPool, Phase, Relu, Training
from nibblecore.sim.compiler.estimate import estimates, listing, makespan, phases
from nibblecore.sim.compiler.program import Program
from nibblecore.sim.golden.cambriconq.control.scoreboard import Lane

TINY, PAPER = CAMBRICONQ["tiny"], CAMBRICONQ["paper"]


def cycles(config, opcode, **fields):
    program = Program()
    program.emit(opcode, **fields)
    return list(estimates(program, config))[-1].cycles


@pytest.fixture
def step():
    layers = (Conv2d(4, 3), MaxPool(2), Relu(), Dense(4))
    return Training(TINY, (6, 6, 1), layers, 4, 8, 8, Adam(0.01), 1 << 18).step(1, 0)


def test_the_large_product_is_as_long_as_its_passes():
    """512³ in 8 bits on 64 × 64: 512³ / (4096 / 4) cycles and a few hundred."""
    slot, lines = 2, 8 * 2
    product = {
        "group": 2,
        "rows": 512,
        "cols": 512,
        "dest_row": 512,
        "a_row": lines,
        "w_row": lines,
        "a_slot": slot,
        "w_slot": slot,
    }
    assert 131072 <= cycles(PAPER, Opcode.MM, **product, vectors=8) < 131072 + 400


@pytest.mark.parametrize(
    "opcode, fields, least",
    [
        (Opcode.SLOAD, {"src_row": 4}, 1000),
        (Opcode.SSTORE, {"dest_row": 4}, 1000),
        (Opcode.VFMUL, {}, 1000),
        (Opcode.SLOAD, {"dest_col": 1}, 500),
        (Opcode.SSTORE, {"src_col": 1}, 500),
        (Opcode.SLOAD, {"dest_col": 1, "src": 4}, 1000),
        (Opcode.SSTORE, {"src_col": 1, "src_row": 3}, 1000),
        (Opcode.SSTORE, {"src_col": 1, "dest": 12}, 1000),
        (Opcode.QMOVE, {"slot": 2, "src_col": 1}, 20 * 32 + 64),
        (Opcode.QLOAD, {"slot": 2, "src_col": 4}, 20 * 32 + 64),
        (Opcode.VADD, {"a_col": 2, "b_col": 2}, 2000),
        (Opcode.VADD, {"a_col": 2, "b_col": 1}, 1500),
        (Opcode.VADD, {"a_col": 1, "b_col": 1}, 1250),
        (Opcode.VADD, {"a_col": 1}, 1000),
        (Opcode.QMOVE, {"slot": 2}, 20 * 57 + 64),
        (Opcode.HADD, {}, 5 * (4 * 49 + 4)),
        (Opcode.WGSTORE, {"mem_row": 200}, 1000),
    ],
)
def test_vectors_take_what_the_units_do_a_cycle(opcode, fields, least):
    assert least < cycles(TINY, opcode, rows=20, cols=50, **fields) < least + 120


@pytest.mark.parametrize("rows, cols, least", [(1, 6000, 9000), (20, 50, 1500), (1000, 1, 8000)])
def test_an_update_over_the_bus_brings_three_words_a_weight(rows, cols, least):
    assert least < cycles(CAMBRICONQ["tiny_bus"], Opcode.WGSTORE, rows=rows, cols=cols, mem_row=4 * cols) < least + 200


def test_candidates_are_tried_one_after_the_other():
    program = Program()
    move = {"slot": 2, "rows": 4, "cols": 512}
    program.emit(Opcode.QMOVE, **move, src_col=1)
    program.emit(Opcode.CROSET, register=Constant.SQU, value=3)
    program.emit(Opcode.QMOVE, **move, src_col=1)
    program.emit(Opcode.QMOVE, **move, src_col=2)
    program.emit(Opcode.QLOAD, **move)
    found = [e.cycles for e, i in zip(estimates(program, TINY), program.instructions, strict=True) if i.opcode != Opcode.CROSET]
    assert found[1] - found[0] == 3 * 1024 and found[2] == found[1] and abs(found[3] - 1.5 * 2048 - found[0] + 1024) < 50


def test_stores_wait_where_computing_reads():
    """A vector that reads a row every cycle leaves a store of every other word a third of what there is; lanes along rows, more."""

    def stored(*sums):
        program = Program()
        program.emit(Opcode.QMOVE, slot=2, rows=10, cols=40, src_row=80, src_col=2)
        for fields in sums:
            program.emit(Opcode.VFMUL, **WORDS, dest=2000, **fields)
        return next(iter(estimates(program, TINY))).cycles

    alone, along, across = (stored(*sums) for sums in ((), ({"a": 3000, "a_col": 1},), ({"a": 3000, "a_col": 2},)))
    assert alone + 30 < along < alone + 60 and alone + 100 < across < alone + 140
    assert stored({"a": 3000, "a_col": 1}, {"a": 3000, "a_col": 1}) == pytest.approx(2 * along - alone, abs=10)
    assert stored({"a": 3000, "a_col": 0}) == alone


def test_the_listing_is_a_program_with_its_cycles(step):
    """Every line is a comment or an instruction behind index, start, cycles, lane and phase; the totals are the sums."""
    lines = listing(step, TINY).splitlines()
    body = [line.split(maxsplit=5) for line in lines if not line.startswith("#")]
    assert assemble("\n".join(line[5] for line in body)) == step.binary()
    found = list(estimates(step, TINY))
    lane_of = {lane.name: lane for lane in Lane} | {"-": None}
    shown = [(int(start), int(count), lane_of[lane], Phase[phase]) for _, start, count, lane, phase, _ in body]
    assert shown == found and [int(line[0]) for line in body] == list(range(len(found)))
    total = makespan(step, TINY)
    assert f"about {total:,} cycles" in lines[len(body) + 1]
    for line, lane in zip(lines[len(body) + 2 :], Lane, strict=False):
        busy = sum(each.cycles for each in found if each.lane == lane)
        assert line.split()[1:4] == [lane.name, f"{busy:,}", f"{busy / total:.1%}"]
    counted = phases(step, TINY)
    for line, phase in zip(lines[-len(Phase) :], Phase, strict=True):
        work = sum(each.cycles for each in found if each.phase == phase)
        share = f"{counted[phase] / total:.1%}"
        assert line.split()[1:8] == [phase.name, f"{work:,}", "of", "work,", f"{counted[phase]:,}", "counted", share]


def test_every_cycle_counts_for_one_phase(step):
    """The oldest at work, a younger one from its end on; the cycles in which none is at work count for the last that was."""
    counted, found = phases(step, TINY), list(estimates(step, TINY))
    assert sum(counted.values()) == makespan(step, TINY) and all(counted.values())
    assert any(one.start + one.cycles > next_.start + 100 for one, next_ in pairwise(found))
    clock: list[Phase | None] = [None] * makespan(step, TINY)
    last = Phase.OTHER
    for start, cycles, _, phase in reversed(found):
        clock[start : start + cycles] = [phase] * cycles
    assert None in clock
    for cycle, at_work in enumerate(clock):
        last = last if at_work is None else at_work
        clock[cycle] = last
    assert {phase: clock.count(phase) for phase in Phase} == counted


WORDS = {"rows": 1, "cols": 200, "dest_col": 1}
VECTORS = {"slot": 2, "rows": 10, "cols": 64}
LOAD = Opcode.SLOAD, {**WORDS, "src": 4096}
STORE = Opcode.QMOVE, {**VECTORS, "src": 1000, "src_row": 64, "src_col": 1, "side": 1, "dest": 500}
SUM = Opcode.VFMUL, {**WORDS, "dest": 2000, "a": 3000, "a_col": 1}
PRODUCT = (
    Opcode.MM,
    {"group": 2, "rows": 64, "cols": 8, "dest": 4000, "dest_row": 8, "a_row": 2, "a_slot": 2, "w_slot": 2, "vectors": 1},
)
UPDATE = (
    Opcode.WGSTORE,
    {"rows": 1, "cols": 200, "src": 5000, "src_col": 1, "w": 1 << 14, "m": 1 << 15, "v": 1 << 16, "mem_row": 800},
)
KEEP = Opcode.VSTORE, {"slot": 2, "vectors": 100, "src": 600, "dest": 1 << 17, "dest_tags": 1 << 18}
TURN = Opcode.VTURN, {**VECTORS, "src": 300, "src_row": 8, "dest": 600, "dest_row": 2}
BUS = CAMBRICONQ["tiny_bus"]


@pytest.mark.parametrize(
    "config, first, second, waits",
    [
        (TINY, LOAD, STORE, False),
        (TINY, LOAD, SUM, False),
        (TINY, STORE, PRODUCT, False),
        (TINY, SUM, UPDATE, False),
        (TINY, LOAD, LOAD, True),
        (TINY, STORE, UPDATE, True),
        (TINY, SUM, PRODUCT, True),
        (TINY, LOAD, (Opcode.VFMUL, {**SUM[1], "a": 100}), True),
        (TINY, SUM, (Opcode.SLOAD, {**WORDS, "dest": 3100}), True),
        (TINY, LOAD, UPDATE, True),
        (TINY, UPDATE, LOAD, True),
        (BUS, LOAD, UPDATE, False),
        (BUS, UPDATE, LOAD, False),
        (TINY, PRODUCT, KEEP, True),
        (TINY, KEEP, PRODUCT, True),
        (TINY, TURN, PRODUCT, True),
        (TINY, KEEP, SUM, False),
        (TINY, STORE, (Opcode.CROSET, {"register": Constant.SQU}), True),
        (TINY, UPDATE, (Opcode.CROSET, {"register": Constant.C1}), True),
        (TINY, LOAD, (Opcode.CROSET, {"register": Constant.MEMORY_SQU}), True),
        (TINY, SUM, (Opcode.CROSET, {"register": Constant.SQU}), False),
        (TINY, STORE, (Opcode.CROSET, {"register": 32}), False),
        (TINY, STORE, (Opcode.HALT, {}), True),
        (TINY, SUM, (Opcode.HALT, {}), True),
    ],
)
def test_lanes_work_side_by_side(config, first, second, waits):
    """But for what shares a lane, a place, the memory or the buffers' ports."""
    program = Program()
    for opcode, fields in (first, second):
        program.emit(opcode, **fields)
    one, other = estimates(program, config)
    end = one.start + one.cycles
    if waits and first is UPDATE and config.dram is not None:
        # It could not even be fetched.
        assert end + 34 <= other.start < end + 34 + 20
    else:
        assert (other.start == end) if waits else (one.start < other.start < end)


def test_instructions_start_in_their_order():
    """What waits holds up what is behind it; three that are behind it have been fetched by then, the others are fetched one by one."""
    program = Program()
    long = Opcode.SLOAD, {**LOAD[1], "cols": 600}
    for opcode, fields in (long, long, *[(Opcode.CROSET, {"register": 0, "value": n}) for n in range(8)]):
        program.emit(opcode, **fields)
    found = estimates(program, TINY)
    starts = [each.start for each in found]
    assert starts == sorted(starts) and starts[1] == found[0].start + found[0].cycles > starts[0] + 300
    apart = [b - a for a, b in pairwise(starts[1:])]
    assert apart[0] < 15 and apart[1] == apart[2] < 5 and all(26 + 8 <= each <= 67 + 8 for each in apart[3:])


def test_the_engine_holds_up_fetching():
    spans = []
    for config in (TINY, BUS):
        program = Program()
        program.emit(UPDATE[0], **UPDATE[1])
        for at in range(6):
            program.emit(Opcode.VFMUL, rows=1, cols=1, dest=at, dest_col=1, a=at, a_col=1)
        update, *_, last = estimates(program, config)
        spans.append(last.start - update.start - update.cycles)
    assert spans[0] > 20 and spans[1] < 0


def test_phases_of_a_step_are_those_of_training(step):
    """Every instruction counts as what it is for; the passes come in order."""
    seen = []
    for instruction in step.instructions:
        if instruction.opcode in (Opcode.CROSET, Opcode.HALT):
            continue
        phase = Phase(instruction.phase)
        if instruction.opcode in (Opcode.QLOAD, Opcode.QMOVE, Opcode.QSTORE):
            assert phase == Phase.Q
        elif instruction.opcode == Opcode.WGSTORE:
            assert phase == Phase.WU
        else:
            seen.append(phase)
    passes = [phase for phase, _ in groupby(seen)]
    assert passes[0] == Phase.OTHER and passes[1] == Phase.FW and passes[-1] == Phase.WG
    assert not {Phase.Q, Phase.WU} & set(passes) and passes.count(Phase.OTHER) == 1
    assert passes.index(Phase.NG) < passes.index(Phase.WG)
