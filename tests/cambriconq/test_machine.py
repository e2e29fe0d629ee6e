from fractions import Fraction

import numpy as np
import pytest
from nibblecore.hdl.cambriconq.program import isa
from nibblecore.hdl.cambriconq.program.isa import Constant, Instruction, Opcode, Unary
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.golden.cambriconq.machine import Machine, MachineError
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode

TINY = CAMBRICONQ["tiny"]
SIZE = 1 << 18
PROGRAM = SIZE - (1 << 14)


def function(number, x):
    """Stands in for the SFU where the test does not look at it."""
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        return {
            Unary.COPY: wide,
            Unary.RELU: np.maximum(wide, 0),
            Unary.EXP: np.exp(wide),
            Unary.LOG: np.log(wide),
            Unary.RECIPROCAL: 1 / wide,
        }[number].astype(np.float32)


@pytest.fixture
def machine():
    return Machine(TINY, np.zeros(SIZE, np.uint8), function)


def run(machine, *instructions):
    binary = b"".join(isa.encode(Instruction.of(opcode, **fields)) for opcode, fields in (*instructions, (Opcode.HALT, {})))
    machine.memory[PROGRAM : PROGRAM + len(binary)] = np.frombuffer(binary, np.uint8)
    return machine.run(PROGRAM, isa.decode, isa.INSTRUCTION_BYTES)


def candidate(bits):
    return {"register": Constant.SQU_CANDIDATE0, "value": bits // 4 - 1 | (2 ** (bits - 1) - 1) << 16}


def nbout(machine, at, values):
    machine.nbout[at : at + values.size] = values.ravel()
    return {"src": at, "src_row": values.shape[1], "src_col": 1, "rows": values.shape[0], "cols": values.shape[1]}


def exact(vectors):
    """Values of a row of vectors, as fractions."""
    return [Fraction(int(q)) * Fraction(2) ** tag.exponent for values, tag in vectors for q in values]


def nearest(value):
    """The float32 next to a fraction, ties to even, found without any rounding of ours."""
    guess = np.float32(float(value))
    around = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return min(around, key=lambda x: (abs(Fraction(float(x)) - value), int(x.view(np.uint32)) & 1))


@pytest.mark.parametrize(
    "bits_a, bits_w, group", [(4, 4, 4), (8, 8, 2), (8, 4, 4), (4, 16, 1), (12, 12, 1), (16, 16, 1), (8, 8, 1)]
)
def test_product_is_the_exact_sum_of_a_group_rounded_once(machine, bits_a, bits_w, group):
    rng = np.random.default_rng(bits_a * 100 + bits_w)
    a, w = rng.normal(0, 3, (3, 70)).astype(np.float32), rng.normal(0, 0.1, (5, 70)).astype(np.float32)
    slots = bits_a // 4, bits_w // 4
    run(
        machine,
        (Opcode.CROSET, candidate(bits_a)),
        (Opcode.QMOVE, {"side": 0, "slot": slots[0], "dest": 0, **nbout(machine, 0, a)}),
        (Opcode.CROSET, candidate(bits_w)),
        (Opcode.QMOVE, {"side": 1, "slot": slots[1], "dest": 7, **nbout(machine, 300, w)}),
        (
            Opcode.MM,
            {
                "group": group,
                "rows": 3,
                "cols": 5,
                "dest": 1000,
                "dest_row": 6,
                "a": 0,
                "a_row": 5 * slots[0],
                "w": 7,
                "w_row": 5 * slots[1],
                "a_slot": slots[0],
                "w_slot": slots[1],
                "vectors": 5,
            },
        ),
    )
    for i in range(3):
        for j in range(5):
            left = exact([machine.buffers[0].vector((i * 5 + v) * slots[0], slots[0]) for v in range(5)])
            right = exact([machine.buffers[1].vector(7 + (j * 5 + v) * slots[1], slots[1]) for v in range(5)])
            assert np.allclose([float(x) for x in left[:70]], a[i], atol=2.0 ** (3 - bits_a) * np.abs(a[i]).max())
            total = None
            for first in range(0, 80, 16 * group):
                part = nearest(
                    sum(x * y for x, y in zip(left[first : first + 16 * group], right[first : first + 16 * group], strict=True))
                )
                total = part if total is None else np.float32(total + part)
            assert machine.nbout[1000 + 6 * i + j] == total


def test_accumulates_and_leaves_the_rest_alone(machine):
    a = np.ones((2, 16), np.float32)
    move = [(Opcode.QMOVE, {"side": side, "slot": 2, "dest": 0, **nbout(machine, 0, a)}) for side in (0, 1)]
    product = {
        "group": 1,
        "rows": 2,
        "cols": 2,
        "dest": 100,
        "dest_row": 4,
        "a_row": 2,
        "w_row": 2,
        "a_slot": 2,
        "w_slot": 2,
        "vectors": 1,
    }
    machine.nbout[100:110] = 0.5
    run(machine, *move, (Opcode.MM, {**product, "accumulate": 1}))
    assert machine.nbout[100:110].tolist() == [16.5, 16.5, 0.5, 0.5, 16.5, 16.5, 0.5, 0.5, 0.5, 0.5]
    run(machine, (Opcode.MM, product))
    assert machine.nbout[100:110].tolist() == [16, 16, 0.5, 0.5, 16, 16, 0.5, 0.5, 0.5, 0.5]


def test_convolution_is_the_sum_over_its_windows(machine):
    rng = np.random.default_rng(5)
    image = rng.integers(-7, 8, (6, 7, 16)).astype(np.float32)
    kernel = rng.integers(-7, 8, (3, 3 * 2 * 16)).astype(np.float32)
    run(
        machine,
        (Opcode.QMOVE, {"side": 0, "slot": 2, "dest": 0, **nbout(machine, 0, image.reshape(42, 16))}),
        (Opcode.QMOVE, {"side": 1, "slot": 2, "dest": 0, **nbout(machine, 1000, kernel)}),
        (
            Opcode.CONV,
            {
                "group": 1,
                "rows": 2 * 3,
                "cols": 3,
                "dest": 2000,
                "dest_row": 4,
                "a": 0,
                "a_row": 14,
                "a_col": 2,
                "w": 0,
                "w_row": 12,
                "a_slot": 2,
                "w_slot": 2,
                "vectors": 1,
                "out_width": 3,
                "stride": 2,
                "kernel_rows": 3,
                "kernel_cols": 2,
            },
        ),
    )
    found = machine.nbout[2000:2024].reshape(2, 3, 4)[..., :3]
    for y in range(2):
        for x in range(3):
            window = image[2 * y : 2 * y + 3, 2 * x : 2 * x + 2].ravel()
            assert np.array_equal(found[y, x], kernel @ window)


def test_stores_come_back(machine):
    rng = np.random.default_rng(6)
    x = rng.normal(size=(3, 40)).astype(np.float32)
    run(
        machine,
        (Opcode.QSTORE, {"slot": 2, "dest": 512, "dest_tags": 4096, **nbout(machine, 0, x)}),
        (Opcode.QMOVE, {"side": 0, "slot": 2, "dest": 0, **nbout(machine, 0, x)}),
        (Opcode.VLOAD, {"side": 1, "slot": 2, "vectors": 9, "dest": 3, "src": 512, "src_tags": 4096}),
        (Opcode.VSTORE, {"side": 1, "slot": 2, "vectors": 9, "src": 3, "dest": 8192, "dest_tags": 12288}),
    )
    for number in range(9):
        (values, tag), (other, other_tag) = machine.buffers[0].vector(2 * number, 2), machine.buffers[1].vector(3 + 2 * number, 2)
        assert tag == other_tag and np.array_equal(values, other)
    assert (
        np.array_equal(machine.memory[512 : 512 + 144], machine.memory[8192 : 8192 + 144]) and machine.memory[512 : 512 + 144].any()
    )
    assert np.array_equal(machine.memory[4096:4114], machine.memory[12288:12306])


def test_transposes_on_the_way(machine):
    x = np.arange(1, 101, dtype=np.float32).reshape(5, 20)
    place = nbout(machine, 0, x)
    place.update(rows=20, cols=5, src_row=1, src_col=20)
    run(machine, (Opcode.CROSET, candidate(16)), (Opcode.QMOVE, {"side": 0, "slot": 4, "dest": 0, **place}))
    for column in range(20):
        values, tag = machine.buffers[0].vector(4 * column, 4)
        assert np.allclose(values[:5] * 2.0**tag.exponent, x[:, column], rtol=1e-4) and not values[5:].any()


def test_stripes(machine):
    machine.memory.view(np.float32)[:64] = np.arange(64)
    run(
        machine,
        (Opcode.SLOAD, {"rows": 3, "cols": 4, "dest": 10, "dest_row": 1, "dest_col": 3, "src": 8, "src_row": 40}),
        (Opcode.SSTORE, {"rows": 3, "cols": 4, "src": 10, "src_row": 1, "src_col": 3, "dest": 1024, "dest_row": 16}),
    )
    assert machine.memory.view(np.float32)[256:268].tolist() == [2, 3, 4, 5, 12, 13, 14, 15, 22, 23, 24, 25]


def test_vector_operations(machine):
    a, b = np.array([1, -2, np.nan, 0, np.inf], np.float32), np.array([2, -2, 1, -0.0, -np.inf], np.float32)
    machine.nbout[:5], machine.nbout[5:10] = a, b
    place = {"rows": 1, "cols": 5, "dest_col": 1, "a_col": 1, "b": 5, "b_col": 1}
    with np.errstate(invalid="ignore"):
        results = {
            Opcode.VADD: a + b,
            Opcode.VSUB: a - b,
            Opcode.VMUL: a * b,
            Opcode.VMAX: np.maximum(a, b),
            Opcode.VSTEP: (a >= b).astype(np.float32),
        }
    for opcode, expected in results.items():
        run(machine, (opcode, {**place, "dest": 20}))
        found = machine.nbout[20:25]
        assert np.array_equal(found, expected, equal_nan=True)
        assert all(bits == 0x7FC00000 for bits in found.view(np.uint32)[np.isnan(found)])
    machine.nbout[:6] = [1e8, 1, -1e8, 3, 4, 5]
    run(
        machine,
        (Opcode.HADD, {"rows": 2, "cols": 3, "dest": 30, "dest_row": 1, "src": 0, "src_row": 3, "src_col": 1}),
        (Opcode.HMAX, {"rows": 1, "cols": 6, "dest": 32, "src": 0, "src_col": 1}),
        (Opcode.HMUL, {"rows": 1, "cols": 3, "dest": 33, "src": 3, "src_col": 1}),
        (Opcode.VFMUL, {"rows": 1, "cols": 1, "dest": 34, "a": 3, "value": 0xBF000000}),
    )
    assert machine.nbout[30:35].tolist() == [0, 12, 1e8, 60, -1.5]  # 1e8 + 1 − 1e8 in that order is 0


MM = {"group": 1, "rows": 1, "cols": 1, "a_slot": 2, "w_slot": 2, "vectors": 1}
ROW = {"side": 0, "slot": 2, "rows": 1, "cols": 16, "src_col": 1}


@pytest.mark.parametrize(
    "code, instruction",
    [
        ("ZERO_SIZE", (Opcode.VADD, {"rows": 0, "cols": 4})),
        ("ZERO_SIZE", (Opcode.MM, MM | {"cols": 0})),
        ("ZERO_SIZE", (Opcode.MM, MM | {"vectors": 0})),
        ("ZERO_SIZE", (Opcode.CONV, MM)),
        ("ZERO_SIZE", (Opcode.VLOAD, {"slot": 1})),
        ("MISALIGNED", (Opcode.SLOAD, {"rows": 1, "cols": 1, "src": 2})),
        ("MISALIGNED", (Opcode.SSTORE, {"rows": 2, "cols": 1, "dest_row": 6})),
        ("MISALIGNED", (Opcode.QSTORE, {"slot": 2, "rows": 1, "cols": 1, "dest": 4})),
        ("MISALIGNED", (Opcode.VLOAD, {"slot": 2, "vectors": 1, "src_tags": 1})),
        ("MEMORY_RANGE", (Opcode.SLOAD, {"rows": 1, "cols": 2, "src": SIZE - 4})),
        ("MEMORY_RANGE", (Opcode.SSTORE, {"rows": 2, "cols": 1, "dest_row": SIZE})),
        ("MEMORY_RANGE", (Opcode.QSTORE, {"slot": 2, "rows": 1, "cols": 16, "dest": SIZE - 8})),
        ("MEMORY_RANGE", (Opcode.WGSTORE, {"rows": 1, "cols": 2, "w": 0, "m": 0, "v": SIZE - 4})),
        ("BUFFER_RANGE", (Opcode.VMUL, {"rows": 2, "cols": 2, "dest": TINY.nbout_words - 2, "dest_row": 1, "dest_col": 1})),
        ("BUFFER_RANGE", (Opcode.QMOVE, ROW | {"dest": TINY.nbin_lines - 1})),
        ("BUFFER_RANGE", (Opcode.VLOAD, {"slot": 2, "vectors": 2, "dest": TINY.nbin_lines - 3})),
        ("BAD_FORMAT", (Opcode.MM, MM | {"group": 3})),
        ("BAD_FORMAT", (Opcode.MM, MM | {"group": 4})),
        ("BAD_FORMAT", (Opcode.MM, MM | {"a_slot": 0})),
        ("MISALIGNED", (Opcode.MM, MM | {"dest": 1})),
        ("MISALIGNED", (Opcode.MM, MM | {"dest_row": 3})),
        ("BAD_FORMAT", (Opcode.QMOVE, ROW | {"slot": 1})),
        ("BAD_FORMAT", (Opcode.QMOVE, ROW | {"slot": 0})),
        ("BAD_FORMAT", (Opcode.CROSET, {"register": Constant.SQU, "value": 12})),
        ("BAD_FORMAT", (Opcode.CROSET, {"register": Constant.SQU_CANDIDATE0, "value": 8 << 16})),
        ("NO_TAG", (Opcode.MM, MM)),
    ],
)
def test_stops_and_changes_nothing(machine, code, instruction):
    machine.nbout[:] = 3
    machine.memory[:PROGRAM] = 7
    with pytest.raises(MachineError) as stopped:
        run(machine, (Opcode.VADD, {"rows": 1, "cols": 1}), instruction)
    assert stopped.value.code == ErrorCode[code] and stopped.value.index == 1, stopped.value
    assert (machine.memory[:PROGRAM] == 7).all() and (machine.nbout[1:] == 3).all()
    assert not any(tag for buffer in machine.buffers for tag in buffer.tags)


def test_stops_at_what_is_no_instruction(machine):
    with pytest.raises(MachineError) as stopped:
        machine.run(PROGRAM, isa.decode, isa.INSTRUCTION_BYTES)
    assert stopped.value.code == ErrorCode.ILLEGAL_INSTRUCTION
    for entry, code in ((SIZE, ErrorCode.MEMORY_RANGE), (SIZE - 64 + 4, ErrorCode.MISALIGNED)):
        with pytest.raises(MachineError) as stopped:
            machine.run(entry, isa.decode, isa.INSTRUCTION_BYTES)
        assert stopped.value.code == code


def test_tags_of_a_group_must_agree(machine):
    x = np.concatenate([np.full(16, 1.0), np.full(16, 100.0)]).astype(np.float32).reshape(2, 16)
    with pytest.raises(MachineError) as stopped:
        run(
            machine,
            *[(Opcode.QMOVE, {"side": side, "slot": 2, "dest": 0, **nbout(machine, 0, x)}) for side in (0, 1)],
            (Opcode.MM, MM | {"group": 2, "vectors": 2}),
        )
    assert stopped.value.code == ErrorCode.TAG_MISMATCH
