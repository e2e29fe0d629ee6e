"""WGSTORE with the engine, on DRAM banks that check every command."""

import random
from dataclasses import asdict, replace

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from dram import Dram, DramPort
from nibblecore.hdl.cambriconq.program.job import Shape
from nibblecore.hdl.config import CAMBRICONQ, DramConfig
from nibblecore.sim.golden.cambriconq.machine import Machine, _Stop
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.golden.cambriconq.update.ndp_engine import refusal
from nibblecore.sim.golden.cambriconq.update.weight_updater import weight_updater
from places import now
from structs import join
from updates import OPTIMIZERS, memory, numbers, twin, words_of

SMALL = DramConfig(rows=32, columns=16, rcd=3, rp=5, ras=9, wr=4)
MORE_BANKS = DramConfig(banks=16, rows=16, columns=16, rcd=5, rp=2, ras=7, wr=4)


class Driver:
    """The unit with memory at its port; `words` is what memory should hold."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.config = DramConfig(**bench.parameters()["dram"])
        self.dram = Dram(self.config)
        self.numpy_rng = np.random.default_rng(rng.getrandbits(32))
        self.words = memory(self.config.words, self.numpy_rng)
        self.dram.load(self.words)
        self.quiet()
        cocotb.start_soon(DramPort(dut, self.dram, rng).run())

    def quiet(self):
        for port in ("start", "shape", "w", "m", "v", "mem_row", "optimizer", "use_m", "use_rsqrt", "i__valid", "i__payload"):
            getattr(self.dut, port).value = 0

    async def begin(self, name, shape, addresses, mem_row):
        dut, (constants, selectors) = self.dut, words_of(name)
        dut.optimizer.value, dut.use_m.value, dut.use_rsqrt.value = bench.pack(constants, 32), selectors & 1, selectors >> 1
        dut.shape.value, dut.mem_row.value = join(Shape, {"rows": shape[0], "cols": shape[1]}), mem_row
        dut.w.value, dut.m.value, dut.v.value = addresses
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0

    async def update(self, name, shape, addresses, mem_row, pattern=None, *, rows_given=None):
        """Memory and code as the twin has them, `done` once, no gradient too many; returns (code, cycles from start to `done`).

        Gradients are there for `rows_given` rows, or for all.
        """
        dut, dram = self.dut, self.dram
        gradients = numbers(self.numpy_rng, (rows_given or shape[0]) * shape[1])
        activates, before = dram.activates, self.words.copy()
        expected = weight_updater(self.config, self.words, twin(name), addresses, mem_row, gradients.reshape(-1, shape[1]))
        sender = cocotb.start_soon(bench.send(dut, "i", [*gradients.tolist(), 0], pattern))
        first, taken, done = now(), 0, 0
        await self.begin(name, shape, addresses, mem_row)
        while not done:
            await ReadOnly()
            taken += int(dut.i__valid.value and dut.i__ready.value)
            assert dut.w.value == addresses[0]
            done = int(dut.done.value) and now()
            code = int(dut.code.value)
            assert now() - first < 200 * len(gradients) + 100 * shape[0] + 1000, "hangs"
            await RisingEdge(dut.clk)
        sender.cancel()
        dut.i__valid.value = 0
        assert code == expected, (shape, addresses, mem_row)
        assert not dram.any_open(), "a row is still open"
        wrong = np.flatnonzero(dram.words() != self.words)
        assert not len(wrong), f"{len(wrong)} words differ, the first at {int(wrong[0])}"
        if code == 0:
            assert taken == len(gradients)
        else:
            assert taken % shape[1] == 0 and taken < len(gradients)
            assert dram.activates > activates if taken else (dram.activates == activates and (self.words == before).all())
        for _ in range(3):
            await ReadOnly()
            assert not dut.done.value and not dut.i__ready.value
            await RisingEdge(dut.clk)
        return code, done - first


async def start(dut):
    rng = random.Random(random.getrandbits(32))
    driver = Driver(dut, rng)
    await bench.start(dut)
    return driver, rng


def anywhere(rng, config, column=None):
    """Three addresses, mostly in one column."""
    column = rng.randrange(config.columns) if column is None else column
    return tuple(4 * (rng.randrange(config.pages) * config.columns + column) for _ in range(3))


def legal(rng, config, shape, mem_row):
    """Addresses of which no row is refused."""
    rows, cols = (1, shape[0] * shape[1]) if mem_row == 4 * shape[1] else shape
    while True:
        addresses = anywhere(rng, config)
        if all(refusal(config, tuple(at + row * mem_row for at in addresses), cols) is None for row in range(rows)):
            return addresses


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(pattern=list(bench.PATTERNS))
async def bench_shapes(dut, pattern):
    """Rows side by side, apart and over each other, of every optimizer."""
    driver, rng = await start(dut)
    shapes = [(1, 1), (1, 20), (7, 1), (3, 5), (2, 16), (5, 17), (rng.randint(1, 9), rng.randint(1, 33))]
    for turn, (rows, cols) in enumerate(shapes if pattern != "rare" else shapes[:5]):
        for mem_row in (4 * cols, 4 * (cols + rng.randint(1, 20)), 4 * rng.randrange(cols + 1)):
            name = list(OPTIMIZERS)[turn % 4]
            addresses = legal(rng, driver.config, (rows, cols), mem_row)
            code, _ = await driver.update(name, (rows, cols), addresses, mem_row, bench.PATTERNS[pattern](rng.getrandbits(32)))
            assert code == 0


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_refused(dut):
    """Each reason, at the first row and later; what follows an error is right, whatever gradients were on offer."""
    driver, rng = await start(dut)
    config = driver.config
    page, size = 4 * config.columns, 4 * config.words
    seen = set()
    cases = [
        ((4, 3), (0, 2 * page + 4, 4 * page), 12),
        ((4, 3), (0, page, 4 * page), 12),
        ((4, 3), (2, 2 * page + 2, 4 * page + 2), 40),
        ((5, 4), (size - 2 * page, 2 * page, 4 * page), page),
        ((5, 20), (size - 7 * page, 0, 2 * page), 2 * page),
        # Ten pages of m begin ten pages after w; a row that begins later in its page needs eleven.
        ((3, 10 * config.columns), (0, 10 * page, 4 * page), 4),
        ((2, 5 * config.columns - 1), (8, 13 * page + 8, 5 * page + 8), 2 * page),
        ((3, 3 * config.columns), (0, 3 * page, 6 * page), 4),
        ((8, 8), (size - 3 * page, 0, 2 * page), 32),
    ]
    for shape, addresses, mem_row in cases * 2:
        before = driver.words.copy()
        code, _ = await driver.update(
            rng.choice(list(OPTIMIZERS)), shape, addresses, mem_row, bench.mostly(0.7, rng.getrandbits(32))
        )
        seen.add((ErrorCode(code).name, bool((driver.words != before).any())))
        await driver.update("adam", (2, 3), legal(rng, config, (2, 3), 16), 16)
    assert seen >= {("MISALIGNED", False), ("MEMORY_RANGE", False), ("BANK_CONFLICT", False), ("MEMORY_RANGE", True)}, seen
    assert ("BANK_CONFLICT", True) in seen, seen


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_any(dut):
    """Shapes and addresses without plan."""
    driver, rng = await start(dut)
    codes = []
    for _ in range(150):
        rows, cols = rng.randint(1, 5), rng.choice((1, 2, 5, 16, 40))
        mem_row = rng.choice((4 * cols, 4 * rng.randrange(3 * cols), 4 * rng.randrange(driver.config.words // 3)))
        addresses = tuple(at + rng.choice([0] * 30 + [1, 4]) for at in anywhere(rng, driver.config))
        codes.append((await driver.update(rng.choice(list(OPTIMIZERS)), (rows, cols), addresses, mem_row))[0])
    assert min(map(codes.count, (ErrorCode.NONE, ErrorCode.MISALIGNED, ErrorCode.MEMORY_RANGE, ErrorCode.BANK_CONFLICT))) >= 3


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_counts(dut):
    """The product of rows and columns, by where it leaves memory: the last count that fits conflicts, one row more is beyond."""
    driver, _ = await start(dut)
    config = driver.config
    for rows, cols in [(64, 64), (1, 4096), (4096, 1), (63, 65), (37, 110), (1365, 3), (5, 819)]:
        free = config.words - rows * cols
        shape_and_code = [((rows, cols), ErrorCode.BANK_CONFLICT), ((rows + 1, cols), ErrorCode.MEMORY_RANGE)]
        for shape, code in shape_and_code:
            addresses = (4 * free, 4 * free, 4 * free)
            assert (await driver.update("sgd", shape, addresses, 4 * shape[1], rows_given=shape[0]))[0] == code
    for shape in ((65535, 65535), (32768, 32768), (32768, 32), (1024, 8192)):
        await driver.begin("sgd", shape, (0, 0, 0), 4 * shape[1])
        for _ in range(60):
            await ReadOnly()
            if dut.done.value:
                assert dut.code.value == ErrorCode.MEMORY_RANGE
                break
            await RisingEdge(dut.clk)
        assert dut.done.value
        await RisingEdge(dut.clk)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_empty(dut):
    driver, rng = await start(dut)
    for rows, cols in ((0, 0), (0, 3), (3, 0)):
        await driver.begin("adam", (rows, cols), (0, 0, 0), 4 * cols)
        await ReadOnly()
        assert dut.done.value and dut.code.value == 0
        for _ in range(40):
            await RisingEdge(dut.clk)
            await ReadOnly()
            assert not dut.done.value
        await RisingEdge(dut.clk)
    assert driver.dram.activates == 0
    await driver.update("adam", (2, 3), legal(rng, driver.config, (2, 3), 12), 12)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_rate(dut):
    """Cycles as the docstring says, of rows side by side and apart."""
    driver, _ = await start(dut)
    columns, overhead = driver.config.columns, bench.parameters()["overhead"]
    page = 4 * columns
    for shape, mem_row in (
        ((1, columns), page),
        ((2, columns // 2), page // 2),
        ((16, columns), 2 * page),
        ((1, columns), 8 * page),
    ):
        jobs, bits = (1, shape[0].bit_length()) if mem_row == 4 * shape[1] else (shape[0], 0)
        _, cycles = await driver.update("adam", shape, (0, 84 * page, 166 * page), mem_row)
        assert cycles == shape[0] * shape[1] + jobs * (overhead + 1) + 2 + bits, (shape, mem_row)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    driver, rng = await start(dut)
    for after in (1, 3, 8, 20, 40, 70, 110):
        sender = cocotb.start_soon(bench.send(dut, "i", numbers(driver.numpy_rng, 100).tolist()))
        mem_row = rng.choice((40, 80))
        await driver.begin("adagrad", (10, 10), legal(rng, driver.config, (10, 10), mem_row), mem_row)
        for _ in range(after):
            await RisingEdge(dut.clk)
        sender.cancel()
        driver.quiet()
        await bench.reset(dut)
        driver.words = driver.dram.words()
        await driver.update("adam", (2, 5), legal(rng, driver.config, (2, 5), 24), 24)


@pytest.mark.parametrize("config", [SMALL, MORE_BANKS], ids=["small", "more_banks"])
def test_weight_updater(config):
    from nibblecore.hdl.cambriconq.update.ndp_engine import NdpEngine
    from nibblecore.hdl.cambriconq.update.weight_updater import WeightUpdater

    parameters = {"dram": asdict(config), "overhead": NdpEngine(config).overhead}
    bench.run(WeightUpdater(config), __file__, "weight_updater", parameters=parameters)


def test_golden_is_the_same_element_by_element():
    """Where no two rows touch, rows are only runs of elements: jobs of one element in any order leave the same memory."""
    rng = np.random.default_rng(3)
    words, gradients = memory(SMALL.words, rng), numbers(rng, 12).reshape(3, 4)
    page = 4 * SMALL.columns
    for mem_row in (16, 20):
        one, other = words.copy(), words.copy()
        assert weight_updater(SMALL, one, twin("adam"), (8, 2 * page + 8, 4 * page + 8), mem_row, gradients) == 0
        for i, j in reversed(list(np.ndindex(3, 4))):
            addresses = tuple(at + i * mem_row + 4 * j for at in (8, 2 * page + 8, 4 * page + 8))
            assert weight_updater(SMALL, other, twin("adam"), addresses, 4, gradients[i : i + 1, j : j + 1]) == 0
        assert (one == other).all() and (one != words).sum() == 36


@pytest.mark.parametrize("engine", [True, False])
def test_machine_updates_and_refuses(engine):
    """The functional model is the twin over NBout and memory; without the engine no place is refused."""
    rng = np.random.default_rng(4)
    config = CAMBRICONQ["tiny"] if engine else replace(CAMBRICONQ["tiny"], dram=None)
    machine = Machine(config, np.zeros(1 << 17, np.uint8), lambda number, x: x)
    machine.memory[:] = memory(1 << 15, rng).view(np.uint8)
    machine.nbout[:] = numbers(rng, machine.nbout.size).view(np.float32)
    machine.optimizer = twin("adam")
    before = machine.memory.copy()
    page, gradients = 1024, machine.nbout[100:112].reshape(4, 3).T.copy()
    fields = {"rows": 3, "cols": 4, "src": 100, "src_row": 1, "src_col": 3, "mem_row": 20}
    machine._wgstore(w=4, m=2 * page + 4, v=4 * page + 4, **fields)
    words, expected = machine.memory.view(np.uint32), before.copy().view(np.uint32)
    assert weight_updater(DramConfig(), expected, twin("adam"), (4, 2 * page + 4, 4 * page + 4), 20, gradients.view(np.uint32)) == 0
    assert (words == expected).all() and (words != before.view(np.uint32)).sum() == 36
    if engine:
        with pytest.raises(_Stop, match="no such row") as stopped:
            machine._wgstore(w=0, m=page, v=4 * page, **fields)
        assert stopped.value.code == ErrorCode.BANK_CONFLICT and (words == expected).all()
    else:
        machine._wgstore(w=0, m=256, v=516, **fields)
        assert (words != expected).sum() == 36
