import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.config import PRESETS, TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import GemmJob, StepLayout
from nibblecore.sim.golden.ltoaq.operands.step_walker import Product, steps
from structs import join, split

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, PRESETS["fpga_fused"])}


def job(product, config):
    m_tiles, n_tiles, k_tiles = product.tiles(config)
    return join(
        GemmJob,
        {
            "eight_bit": product.eight_bit,
            "m_tiles": m_tiles,
            "n_tiles": n_tiles,
            "k": product.k,
            "k_tiles": k_tiles,
            "a_group": product.a_group,
            "w_group": product.w_group,
            "chunk_tiles": product.chunk_tiles,
            "chunked": product.chunked(config),
        },
    )


def products(config, rng):
    """Corners, then random products; K resident and K in parts."""
    s = config.tile
    yield Product(1, 1, 1, False, 1, 1, 1)
    yield Product(s, s, s, True, 1, 1, 1)
    yield Product(s + 1, 1, s + 1, False, 1, 1, 1)
    yield Product(1, 5 * s, 2 * s, False, 255, 255, 2)
    yield Product(3 * s + 1, 4 * s, 5 * s - 1, True, 2, 3, 5)
    yield Product(2 * s, 2 * s, 5 * s - 3, False, 1, 1, 2)
    yield Product(1, 1, 65535, False, 1, 1, -(-65535 // s) - 1)
    yield Product(1, 1, 65535, True, 1, 1, -(-65535 // s))
    yield Product(65535, 1, 1, True, 255, 1, 1)
    yield Product(1, 65535, 1, True, 1, 200, 1)
    for _ in range(20):
        m, n, k = (rng.randint(1, 4 * s) for _ in range(3))
        k_tiles = -(-k // s)
        chunk = rng.choice([k_tiles, rng.randint(1, k_tiles)])
        groups = (rng.randint(1, 4), rng.randint(1, 8)) if chunk == k_tiles else (1, 1)
        yield Product(m, n, k, bool(rng.randrange(2)), groups[0], groups[1], chunk)


async def begin(dut, product, config):
    dut.job.value, dut.start.value = job(product, config), 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_steps(dut):
    config, rng = CONFIGS[bench.parameters()["config"]], random.Random(random.getrandbits(32))
    dut.start.value, dut.o__ready.value = 0, 0
    await bench.start(dut)
    for turn, product in enumerate(products(config, rng)):
        expected = [step._asdict() for step in steps(product, config)]
        await begin(dut, product, config)
        pattern = list(bench.PATTERNS)[turn % len(bench.PATTERNS)]
        taken = await bench.receive(dut, "o", len(expected), bench.PATTERNS[pattern](rng.getrandbits(32)))
        for number, (word, step) in enumerate(zip(taken, expected, strict=True)):
            assert split(StepLayout, word) == step, f"step {number} of {product}"
        for _ in range(3):
            dut.o__ready.value = 1
            await ReadOnly()
            assert not dut.o__valid.value and not dut.busy.value, f"a step after the last of {product}"
            await RisingEdge(dut.clk)
        dut.o__ready.value = 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_a_step_every_cycle(dut):
    config = CONFIGS[bench.parameters()["config"]]
    dut.start.value, dut.o__ready.value = 0, 1
    await bench.start(dut)
    product = Product(5 * config.tile, 5 * config.tile, 3, False, 1, 1, 1)
    await begin(dut, product, config)
    await ReadOnly()
    assert dut.busy.value and not dut.o__valid.value, "a step before two cycles after the start"
    await RisingEdge(dut.clk)
    for _ in steps(product, config):
        await ReadOnly()
        assert dut.o__valid.value
        await RisingEdge(dut.clk)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config = CONFIGS[bench.parameters()["config"]]
    dut.start.value, dut.o__ready.value = 0, 1
    await bench.start(dut)
    product = Product(3 * config.tile, 3 * config.tile, 4 * config.tile, False, 1, 1, 2)
    for cycles in range(1, 14):
        await begin(dut, product, config)
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        await bench.reset(dut)
    await begin(dut, product, config)
    for word, step in zip(await bench.receive(dut, "o", 3), steps(product, config), strict=False):
        assert split(StepLayout, word) == step._asdict()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_walker(config):
    from nibblecore.hdl.ltoaq.operands.step_walker import StepWalker

    bench.run(StepWalker(config), __file__, "step_walker", parameters={"config": config.name})


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_golden_steps_cover_every_product_once(config):
    """Whatever the tiling, every element of K of every part of every output tile comes exactly once."""
    for product in products(config, random.Random(1)):
        m_tiles, n_tiles, _ = product.tiles(config)
        subs = (config.tile // config.rows) * (config.tile // config.output_cols)
        work: dict[tuple[int, int, int], int] = {}
        for step in steps(product, config):
            for a in range(step.a_first, step.a_first + step.a_count):
                for w in range(step.w_first, step.w_first + step.w_count):
                    for sub in [step.sub] if product.chunked(config) else range(subs):
                        work[a, w, sub] = work.get((a, w, sub), 0) + step.k
        assert work == {(a, w, sub): product.k for a in range(m_tiles) for w in range(n_tiles) for sub in range(subs)}
