import random
from dataclasses import replace

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.config import PRESETS, TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import GemmJob, TileIndex, pass_layout
from nibblecore.sim.golden.ltoaq.array.sequencer import passes
from nibblecore.sim.golden.ltoaq.operands.step_walker import Product, steps
from structs import join, split

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256)
EIGHT_LANES = replace(WIDE_BUS, name="eight_lanes", tile=8, lanes=8)
ONE_BLOCK = LtoaqConfig(name="one_block", rows=4, cols=4, tile=4, bus_bytes=8, bank_words=16)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, PRESETS["fpga_fused"], ONE_BLOCK, EIGHT_LANES)}


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


def fitting(config, rng):
    """Products whose groups fit half a bank: corners, then random ones."""
    s, half = config.tile, config.bank_words // 2

    def words(chunk, eight_bit):
        return [s // banks * chunk * (s // config.block) * (1 + eight_bit) for banks in (config.rows, config.output_cols)]

    yield Product(1, 1, 1, False, 1, 1, 1)
    yield Product(2 * s, 2 * s, 5 * s - 3, True, 1, 1, 2)
    yield Product(2 * s, s + 1, 3 * s, False, 1, 1, 1)
    a_words, w_words = words(1, False)
    largest = min(255, half // a_words), min(255, half // w_words)
    yield Product(3 * largest[0] * s, 3 * s, 1, False, *largest, 1)  # both halves of both banks full
    for _ in range(14):
        m, n, k = (rng.randint(1, 4 * s) for _ in range(3))
        eight_bit, k_tiles = bool(rng.randrange(2)), -(-k // s)
        chunk = rng.randint(1, min(k_tiles, half // max(words(1, eight_bit))))
        groups = [1, 1]
        if chunk == k_tiles:
            groups = [rng.randint(1, min(5, half // w)) for w in words(chunk, eight_bit)]
        yield Product(m, n, k, eight_bit, groups[0], groups[1], chunk)


class Loader:
    """Delivers panels tile by tile in the order of the steps, as halves are released; `arrived` counts those that have been shown."""

    def __init__(self, dut, product, config, pattern):
        self.dut, self.pattern = dut, pattern
        self.free = {"a": 2, "w": 2}
        self.arrived = {"a": 0, "w": 0}
        self.groups = [("a", step.a_count, "w", step.w_count if step.new_w else 0, step.tiles) for step in steps(product, config)]

    async def run(self):
        for a, a_count, w, w_count, tiles in self.groups:
            while not self.free["a"] or (w_count and not self.free["w"]):
                await RisingEdge(self.dut.clk)
            self.free["a"] -= 1
            self.free["w"] -= bool(w_count)
            order = [side for pair in zip([a] * a_count, [w] * w_count, strict=False) for side in pair]
            order += [a] * (a_count - w_count) + [w] * (w_count - a_count)
            for side in (side for side in order for _ in range(tiles)):
                while not next(self.pattern):
                    await RisingEdge(self.dut.clk)
                loaded = getattr(self.dut, f"{side}_loaded")
                loaded.value = 1
                await RisingEdge(self.dut.clk)
                loaded.value = 0
                self.arrived[side] += 1


async def take_passes(dut, expected, loader, pattern, product, config):
    """Take every pass, one a cycle at most, in as many pieces along K as come; each piece's tiles must have arrived before it."""
    layout = pass_layout((config.bank_words - 1).bit_length())
    bits = 8 if product.eight_bit else 4
    tile_words, tile_addresses = config.tile // config.word_elements(bits), config.tile // config.block * bits // 4
    pieces = 0
    for number, wanted in enumerate(expected):
        taken = 0
        while taken < wanted.tiles:
            held = None
            while True:
                is_ready = next(pattern)
                dut.command__ready.value = int(is_ready)
                await ReadOnly()
                valid, word = int(dut.command__valid.value), int(dut.command__payload.value)
                assert dut.busy.value
                assert held in (None, word), f"pass {number} changes while it waits"
                held = word if valid else None
                there = min(loader.arrived["a"] - wanted.a_tiles, loader.arrived["w"] - wanted.w_tiles)
                assert taken < there or not valid, f"pass {number} before tile {taken} of its panels"
                assert not (dut.waits.value and valid), f"pass {number} is on offer and yet waits"
                if not valid and taken >= there:
                    assert dut.waits.value, f"pass {number} lacks tile {taken} and does not wait"
                await RisingEdge(dut.clk)
                if valid and is_ready:
                    break
            seen = split(layout, word)
            whole = seen["words"] == wanted.words - taken * tile_words
            tiles = wanted.tiles - taken if whole else 1
            assert taken + tiles <= there, f"pass {number} before its tiles"
            piece = wanted._replace(
                a_address=wanted.a_address + taken * tile_addresses,
                w_address=wanted.w_address + taken * tile_addresses,
                words=seen["words"] if whole else tile_words,
                resume=int(wanted.resume or taken > 0),
                last=int(wanted.last and whole),
                release_a=int(wanted.release_a and whole),
                release_w=int(wanted.release_w and whole),
            )
            assert seen == {name: getattr(piece, name) for name in seen}, f"pass {number}, tile {taken}"
            loader.free["a"] += seen["release_a"]
            loader.free["w"] += seen["release_w"]
            taken += tiles
            pieces += 1
    dut.command__ready.value = 0
    return pieces


async def begin(dut, product, config):
    dut.job.value, dut.start.value = job(product, config), 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


async def start(dut):
    for port in ("start", "a_loaded", "w_loaded", "command__ready", "tile__ready"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return CONFIGS[bench.parameters()["config"]], random.Random(random.getrandbits(32))


async def product_runs(dut, product, config, patterns):
    expected = list(passes(product, config))
    loader = Loader(dut, product, config, patterns[0])
    tiles = [wanted.tile for wanted in expected if wanted.tile]
    await begin(dut, product, config)
    loads = cocotb.start_soon(loader.run())
    indices = cocotb.start_soon(bench.receive(dut, "tile", len(tiles), patterns[2]))
    pieces = await take_passes(dut, expected, loader, patterns[1], product, config)
    taken = [split(TileIndex, word) for word in await indices]
    assert [(index["row"], index["col"]) for index in taken] == tiles
    await loads
    await ReadOnly()
    assert not dut.busy.value and not dut.command__valid.value and not dut.tile__valid.value
    await RisingEdge(dut.clk)
    await bench.reset(dut)
    return pieces


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_passes(dut):
    config, rng = await start(dut)
    names = list(bench.PATTERNS)
    for turn, product in enumerate(fitting(config, rng)):
        # Every pattern on every stream, in different company each time.
        chosen = [names[turn % 4], names[turn // 2 % 4], names[turn // 4 % 4]]
        await product_runs(dut, product, config, [bench.PATTERNS[name](rng.getrandbits(32)) for name in chosen])


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_passes_start_on_part_of_their_panels(dut):
    """Tiles that trickle in are computed one by one; of panels that are there everything goes at once."""
    config, _ = await start(dut)
    s, parts = config.tile, (config.tile // config.rows) * (config.tile // config.output_cols)
    for groups in ((2, 1), (1, 2), (2, 2)):
        for eight_bit in (False, True):
            product = Product(3 * s, 4 * s, 2 * s, eight_bit, *groups, 2)
            if any(
                2 * group * (1 + eight_bit) * s // banks * s // config.block > config.bank_words // 2
                for group, banks in zip(groups, (config.rows, config.output_cols), strict=True)
            ):
                continue
            pieces = await product_runs(dut, product, config, [bench.bursts(1, 20), bench.always(), bench.always()])
            # The first part of every tile that a new panel completes comes in two pieces.
            assert pieces > 3 * 4 * parts, f"{pieces} pieces of {3 * 4 * parts} passes"
            assert pieces <= 3 * 4 * (parts + 1)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config, _rng = await start(dut)
    product = Product(3 * config.tile, 2 * config.tile, config.tile, False, 1, 1, 1)
    for cycles in range(1, 12):
        await begin(dut, product, config)
        dut.a_loaded.value, dut.w_loaded.value, dut.command__ready.value = 1, 1, 1
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        dut.a_loaded.value, dut.w_loaded.value, dut.command__ready.value = 0, 0, 0
        await bench.reset(dut)
    await product_runs(dut, product, config, [bench.always(), bench.always(), bench.always()])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_sequencer(config):
    from nibblecore.hdl.ltoaq.array.sequencer import Sequencer

    bench.run(Sequencer(config), __file__, "sequencer", parameters={"config": config.name})


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_golden_passes_stay_in_their_half_and_complete_every_tile_once(config):
    for product in fitting(config, random.Random(2)):
        half = config.bank_words // 2
        tiles = []
        for wanted in passes(product, config):
            bits = 8 if product.eight_bit else 4
            words = -(-wanted.words * config.word_elements(bits) * bits // (4 * config.block))
            for address in (wanted.a_address, wanted.w_address):
                assert address // half == (address + words - 1) // half
            tiles += [wanted.tile] if wanted.tile else []
        m_tiles, n_tiles, _ = product.tiles(config)
        assert sorted(tiles) == [(row, col) for row in range(m_tiles) for col in range(n_tiles)]
