"""The engine beside the memory, on DRAM banks that check every command."""

import random
from dataclasses import asdict

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from dram import LOST, OPERANDS, Bank, Dram, DramError, DramPort
from nibblecore.hdl.config import DramConfig
from nibblecore.sim.golden.cambriconq.update.ndp_engine import refusal, update
from updates import OPTIMIZERS, memory, numbers, twin, words_of

REASONS = ["NONE", "ZERO_COUNT", "MISALIGNED", "OUT_OF_RANGE", "BANK_CONFLICT"]


def place(rng, config, count):
    """Addresses of a legal job of `count` words, anywhere."""
    while True:
        column = rng.randrange(config.columns)
        addresses = tuple(4 * (rng.randrange(config.pages) * config.columns + column) for _ in OPERANDS)
        if refusal(config, addresses, count) is None:
            return addresses


class Driver:
    """Plays memory, and offers jobs and gradients, cycle by cycle."""

    def __init__(self, dut, rng):
        self.dut, self.rng, self.now = dut, rng, 0
        self.dram = Dram(DramConfig(**bench.parameters()["dram"]))
        self.config = self.dram.config
        self.words = np.zeros(self.config.words, np.uint32)
        self.port = DramPort(dut, self.dram, rng, prefix="")
        for name in ("job__valid", "job__payload", "i__valid", "i__payload", "clear_error"):
            getattr(dut, name).value = 0

    def set_optimizer(self, name):
        constants, selectors = words_of(name)
        for port, bits in zip(("c1", "c2", "c3", "c4", "c5", "epsilon"), constants, strict=True):
            getattr(self.dut, port).value = bits
        self.dut.use_m.value, self.dut.use_rsqrt.value = selectors & 1, selectors >> 1

    async def cycle(self, job=None, gradient=None):
        """One cycle; whether the job was taken, whether the gradient was, and whether a job ended."""
        dut = self.dut
        dut.job__valid.value, dut.i__valid.value = int(job is not None), int(gradient is not None)
        dut.job__payload.value = bench.pack(job, 32) if job is not None else self.rng.getrandbits(128)
        dut.i__payload.value = int(gradient) if gradient is not None else self.rng.getrandbits(32)
        await ReadOnly()
        took_gradient = gradient is not None and bool(int(dut.i__ready.value))
        assert self.port.sample(self.now) == took_gradient
        took_job, done = job is not None and bool(int(dut.job__ready.value)), bool(int(dut.done.value))
        self.error = REASONS[int(dut.error.value)]
        self.busy = bool(int(dut.busy.value))
        await RisingEdge(dut.clk)
        self.now += 1
        self.port.drive()
        return took_job, took_gradient, done

    async def run(self, addresses, gradients, pattern=None, *, limit=None):
        """A job to its end, and the cycles that took; gradients are always on offer, also when none is due. Stops at an error."""
        pattern = pattern or bench.always()
        job: tuple[int, ...] | None = (*addresses, len(gradients))
        offered, taken, begun = None, 0, None
        while limit is None or self.now < limit:
            if offered is None and next(pattern):
                offered = gradients[taken] if taken < len(gradients) else self.rng.getrandbits(32)
            took_job, took_gradient, done = await self.cycle(job, offered)
            if took_job:
                job, begun = None, self.now
            if took_gradient:
                taken, offered = taken + 1, None
                assert taken <= len(gradients), "a gradient too many was taken"
            if done:
                assert taken == len(gradients) and begun is not None
                return self.now - begun
            if self.error != "NONE":
                assert not taken
                return None
        return None


async def begin(dut):
    rng = random.Random(random.getrandbits(32))
    driver = Driver(dut, rng)
    driver.set_optimizer("sgd")
    await bench.start(dut)
    driver.now = 0
    driver.words = memory(driver.config.words, np.random.default_rng(rng.getrandbits(32)))
    driver.dram.load(driver.words)
    return driver, rng, np.random.default_rng(rng.getrandbits(32))


def check(driver):
    assert not driver.dram.any_open(), "a row is still open"
    wrong = np.flatnonzero(driver.dram.words() != driver.words)
    assert not len(wrong), f"{len(wrong)} words differ, the first at {int(wrong[0])}"


async def check_job(driver, name, addresses, gradients, pattern=None):
    driver.set_optimizer(name)
    cycles = await driver.run(addresses, gradients, pattern)
    assert cycles is not None, driver.error
    update(driver.words, twin(name), addresses, gradients)
    check(driver)
    return cycles


@cocotb.test()
async def bench_rate(dut):
    """From job to closed rows, nine tenths of a weight a cycle and more, for each optimizer; rows of this configuration's size."""
    driver, _, numpy_rng = await begin(dut)
    columns = driver.config.columns
    if columns < 256:
        return
    for name in OPTIMIZERS:
        for pages in (4, 8):
            first = (0, 8 + 3, 24 + 6)
            cycles = await check_job(driver, name, [4 * columns * page for page in first], numbers(numpy_rng, pages * columns))
            rate = pages * columns / cycles
            dut._log.info("%s, %d rows of %d bytes: %d cycles, %.3f weights a cycle", name, pages, 4 * columns, cycles, rate)
            assert rate >= 0.9
            assert cycles == pages * columns + bench.parameters()["overhead"]
    assert driver.dram.activates == len(OPTIMIZERS) * 12 * 3


@cocotb.test()
@cocotb.parametrize(pattern=list(bench.PATTERNS))
async def bench_jobs(dut, pattern):
    """Runs that begin and end anywhere in a row, one after the other; words around them stay."""
    driver, rng, numpy_rng = await begin(dut)
    columns = driver.config.columns
    lengths = [1, 2, columns - 1, columns, columns + 1, *(rng.randrange(1, 4 * columns) for _ in range(7))]
    for count in lengths if columns < 256 else lengths[:4]:
        name = rng.choice(list(OPTIMIZERS))
        await check_job(driver, name, place(rng, driver.config, count), numbers(numpy_rng, count), bench.PATTERNS[pattern](1))


@cocotb.test()
async def bench_malformed_jobs(dut):
    """Each reason by itself and any mixture: refused, memory untouched, no job taken until the error is cleared."""
    driver, rng, numpy_rng = await begin(dut)
    config = driver.config
    size, page = 4 * config.words, 4 * config.columns
    jobs = [
        ((0, 2 * page, 4 * page), 0),
        ((1, 2 * page + 1, 4 * page + 1), 1),
        ((0, 2 * page + 2, 4 * page), 1),
        ((0, 2 * page, 4 * page + 4), 1),
        ((size, 2 * page, 4 * page), 1),
        ((0, 2 * page, size - page), config.columns + 1),
        ((0, 2 * page, 4 * page), 2**32 - 1),
        ((0, 2 * page, 2**32 - page), 1),
        ((0, 0, 4 * page), 1),
        ((0, 2 * page, 3 * page), 1),
        ((0, 3 * page, 7 * page), 1),
        ((8 * page, 3 * page, 7 * page), 1),
        ((0, 10 * page, 4 * page), 5 * config.columns),
    ]
    reasons = []
    for _ in range(100):
        column = 4 * rng.randrange(config.columns)
        addresses = tuple(page * rng.randrange(config.pages + 1) + column + rng.choice([0] * 20 + [1, 2, 4]) for _ in OPERANDS)
        jobs.append((addresses, rng.choice([0, 1, config.columns, 3 * config.columns, rng.randrange(config.words)])))
    for addresses, count in jobs:
        expected = refusal(config, addresses, count)
        if expected is None:
            continue
        activates = driver.dram.activates
        await refused(driver, addresses, count)
        assert driver.error == expected, (addresses, count)
        reasons.append(driver.error)
        for _ in range(3):
            took_job, took_gradient, done = await driver.cycle((0, 2 * page, 4 * page, 1), 0)
            assert not (took_job or took_gradient or done or driver.busy) and driver.error == expected
        dut.clear_error.value = 1
        await driver.cycle()
        dut.clear_error.value = 0
        await driver.cycle()
        assert driver.error == "NONE" and driver.dram.activates == activates
    assert set(reasons) == set(REASONS[1:])
    check(driver)
    await check_job(driver, "adam", place(rng, config, 5), numbers(numpy_rng, 5))


async def refused(driver, addresses, count):
    """Offers the job, and gradients, until the engine says why not."""
    job: tuple[int, ...] | None = (*addresses, count)
    for _ in range(20):
        took_job, took_gradient, done = await driver.cycle(job, 0)
        assert not (took_gradient or done)
        job = None if took_job else job
        if driver.error != "NONE":
            return
    raise AssertionError(f"not refused: {addresses}, {count}")


@cocotb.test()
async def bench_refusal_and_clear(dut):
    """`clear_error` in each cycle from the taking of a job on: up to that of the refusal it changes nothing, after it it clears."""
    driver, _, numpy_rng = await begin(dut)
    page, refused_in = 4 * driver.config.columns, 4
    at_once = 0
    for cycle in range(8):
        for now in range(10):
            dut.clear_error.value = int(now == cycle)
            took_job, *_ = await driver.cycle((0, 2 * page + 2, 4 * page, 1) if not now else None, 0)
            stands = now > refused_in and not refused_in < cycle < now
            assert (took_job, driver.error) == (not now, "MISALIGNED" if stands else "NONE"), f"cleared in {cycle}, cycle {now}"
            at_once += now == cycle + 1 == refused_in + 1 and stands
        dut.clear_error.value = 1
        await driver.cycle()
        dut.clear_error.value = 0
        await driver.cycle()
    assert at_once == 1
    await check_job(driver, "sgd", (0, 2 * page, 4 * page), numbers(numpy_rng, 3))


@cocotb.test()
async def bench_reset_mid_flow(dut):
    """A reset stops everything at once; after the banks have been closed the engine works."""
    driver, rng, numpy_rng = await begin(dut)
    columns = driver.config.columns
    for after in (2, 9, 25, 45, 60, 90):
        count = 2 * columns
        await driver.run(place(rng, driver.config, count), numbers(numpy_rng, count), limit=driver.now + after)
        dut.rst.value = 1
        dut.job__valid.value = dut.i__valid.value = 0
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        driver.dram.close()
        driver.words = driver.dram.words()
        for _ in range(30):
            assert await driver.cycle() == (False, False, False) and not driver.busy
        check(driver)
        await check_job(driver, "adagrad", place(rng, driver.config, 5), numbers(numpy_rng, 5))


SMALL = DramConfig(rows=8, columns=16, rcd=3, rp=3, ras=9, wr=8)
LARGE = DramConfig(rows=8)


@pytest.mark.parametrize("config", [SMALL, LARGE], ids=["small", "rows_of_1_kb"])
def test_ndp_engine(config):
    from nibblecore.hdl.cambriconq.update.ndp_engine import NdpEngine

    engine = NdpEngine(config)
    bench.run(engine, __file__, "ndp_engine", parameters={"dram": asdict(config), "overhead": engine.overhead})


def opened(config):
    bank = Bank(config, 0)
    bank.cells[:] = np.arange(config.rows * config.columns).reshape(config.rows, -1)
    bank.activate(100, 2)
    return bank


@pytest.mark.parametrize(
    "violate, message",
    [
        (lambda b, c: b.read(99 + c.rcd, 0), "tRCD"),
        (lambda b, c: b.write(99 + c.rcd, 0, 0), "tRCD"),
        (lambda b, c: b.precharge(99 + c.ras), "tRAS"),
        (lambda b, c: (b.write(200, 0, 0), b.precharge(199 + c.wr)), "tWR"),
        (lambda b, c: (b.precharge(200), b.activate(199 + c.rp, 1)), "tRP"),
        (lambda b, c: b.activate(200, 1), "while row 2 is open"),
        (lambda b, c: (b.precharge(200), b.precharge(300)), "PRECHARGE while no row"),
        (lambda b, c: (b.precharge(200), b.read(300, 0)), "READ while no row"),
        (lambda b, c: (b.precharge(200), b.write(300, 0, 0)), "WRITE while no row"),
    ],
)
def test_dram_forbids(violate, message):
    """Every command a cycle too early, and every one to a row in the wrong state; `test_dram_allows` has them in time."""
    with pytest.raises(DramError, match=message):
        violate(opened(SMALL), SMALL)


def test_dram_allows_and_keeps_data():
    c = SMALL
    bank = opened(c)
    assert bank.read(100 + c.rcd, 3) == 2 * c.columns + 3
    assert (bank.cells[2] == LOST).all()
    bank.write(100 + c.rcd, 3, 77)
    bank.precharge(100 + max(c.ras, c.rcd + c.wr))
    assert bank.cells[2, 3] == 77 and bank.cells[2, 4] == 2 * c.columns + 4
    bank.activate(100 + max(c.ras, c.rcd + c.wr) + c.rp, 1)
    dram = Dram(c)
    words = np.arange(c.words, dtype=np.uint32)
    dram.load(words)
    assert (dram.words() == words).all() and dram.banks[3].cells[1, 2] == (c.banks + 3) * c.columns + 2
    with pytest.raises(DramError, match="at once"):
        dram.command(0, True, True, 0, 0)


def test_golden_updates_only_its_words():
    words = memory(SMALL.words, np.random.default_rng(1))
    before = words.copy()
    addresses, g = (4 * 16 * 0 + 8, 4 * 16 * 3 + 8, 4 * 16 * 6 + 8), numbers(np.random.default_rng(2), 20)
    assert refusal(SMALL, addresses, 20) is None
    update(words, twin("sgd"), addresses, g)
    w, m, v = (slice(at // 4, at // 4 + 20) for at in addresses)
    assert (words[w].view(np.float32) == before[w].view(np.float32) - np.float32(0.01) * g.view(np.float32)).all()
    assert not words[m].any() and not words[v].any()
    rest = np.ones(len(words), bool)
    rest[w] = rest[m] = rest[v] = False
    assert (words[rest] == before[rest]).all()


def test_ndp_engine_refuses_odd_memories():
    for wrong in ({"banks": 4}, {"rows": 3}, {"columns": 1}, {"rp": 1}, {"rows": 1 << 26}):
        with pytest.raises(ValueError):
            DramConfig(**wrong)
