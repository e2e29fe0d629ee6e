import pytest
from nibblecore.hdl.cambriconq.isa import Constant, Opcode
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.asm import assemble
from nibblecore.sim.host.compiler import Conv2d, Dense, MaxPool, Optimizer, Phase, Relu, Training
from nibblecore.sim.host.estimate import estimates, listing, phases
from nibblecore.sim.host.program import Program

TINY, PAPER = CAMBRICONQ["tiny"], CAMBRICONQ["paper"]


def cycles(config, opcode, **fields):
    program = Program()
    program.emit(opcode, **fields)
    return list(estimates(program, config))[-1].cycles


@pytest.fixture
def step():
    layers = [Conv2d(4, 3), MaxPool(2), Relu(), Dense(4)]
    return Training(TINY, (6, 6, 1), layers, 4, 8, 8, Optimizer("adam", 0.01), 1 << 18).step(1, 0)


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
        (Opcode.SLOAD, {"src_row": 4}, 1000), (Opcode.SSTORE, {"dest_row": 4}, 1000), (Opcode.VFMUL, {}, 1000), (Opcode.VADD, {}, 2000),
        (Opcode.QMOVE, {"slot": 2}, 20 * 64 + 128), (Opcode.HADD, {}, 20 * (4 * 49 + 1)), (Opcode.WGSTORE, {"mem_row": 200}, 1000),
    ],
)  # fmt: skip
def test_vectors_take_what_the_units_do_a_cycle(opcode, fields, least):
    assert least < cycles(TINY, opcode, rows=20, cols=50, **fields) < least + 120


def test_candidates_are_tried_one_after_the_other():
    program = Program()
    move = {"slot": 2, "rows": 4, "cols": 512}
    program.emit(Opcode.QMOVE, **move)
    program.emit(Opcode.CROSET, register=Constant.SQU, value=3)
    program.emit(Opcode.QMOVE, **move)
    program.emit(Opcode.QLOAD, **move)
    found = [e.cycles for e, i in zip(estimates(program, TINY), program.instructions, strict=True) if i.opcode != Opcode.CROSET]
    assert found[1] - found[0] == 3 * 2048 and abs(found[2] - 1.5 * 2048 - found[0] + 2048) < 50


def test_the_listing_is_a_program_with_its_cycles(step):
    """Every line is a comment or an instruction behind index, cycles and phase; the totals are the sums."""
    lines = listing(step, TINY).splitlines()
    body = [line for line in lines if not line.startswith("#")]
    assert assemble("\n".join(line.split(maxsplit=3)[3] for line in body)) == step.binary()
    total, by_phase = 0, dict.fromkeys(Phase, 0)
    for number, line in enumerate(body):
        index, count, phase, _ = line.split(maxsplit=3)
        assert int(index) == number
        total += int(count)
        by_phase[Phase[phase]] += int(count)
    assert by_phase == phases(step, TINY) and all(by_phase.values())
    assert f"about {total:,} cycles" in lines[len(body) + 1]
    assert lines[-1].split()[1:3] == ["Q", f"{by_phase[Phase.Q]:,}"]


def test_phases_of_a_step_are_those_of_training(step):
    """Every instruction counts as what it is for; the passes come in order."""
    phase, seen = None, []
    for instruction in step.instructions:
        if instruction.opcode == Opcode.CROSET and instruction.register == Constant.PHASE:
            assert instruction.value != phase
            phase = Phase(instruction.value)
            seen.append(phase)
        elif instruction.opcode in (Opcode.QLOAD, Opcode.QMOVE, Opcode.QSTORE):
            assert phase == Phase.Q
        elif instruction.opcode == Opcode.WGSTORE:
            assert phase == Phase.WU
        elif instruction.opcode == Opcode.MM:
            assert phase in (Phase.FW, Phase.NG, Phase.WG)
    passes = [phase for phase in seen if phase not in (Phase.Q, Phase.WU)]
    assert passes[0] == Phase.OTHER and passes[1] == Phase.FW and passes[-1] == Phase.WG
    assert passes.index(Phase.NG) < passes.index(Phase.WG)
