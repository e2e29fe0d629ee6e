import random
from dataclasses import dataclass

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from nibblecore.hdl.config import PAPER, PRESETS, TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import GemmJob, OperandFormat, OperandJob
from nibblecore.sim.formats.tensor import OaqTensor, PackedTensor, tiles
from nibblecore.sim.golden.ltoaq.operands.loader import bank_words, loads
from nibblecore.sim.golden.ltoaq.operands.operand_buffer import Banks
from nibblecore.sim.golden.ltoaq.operands.step_walker import Product
from structs import join

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256, runs_per_cycle=4)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, PRESETS["fpga_fused"])}
SIDES = "aw"


@dataclass
class Operand:
    """A tensor in memory, and how the loader is to walk it."""

    tensor: OaqTensor
    transposed: bool
    codes_at: int
    runs_at: int
    run_stride: int
    packed: PackedTensor

    def job(self, config):
        cols = tiles(self.tensor.shape, config)[1]
        tile_bytes = config.tile_beats(self.tensor.bits) * config.bus_bytes
        run_bytes = self.run_stride * config.bus_bytes
        steps = {
            "codes_k_step": tile_bytes,
            "codes_panel_step": cols * tile_bytes,
            "runs_k_step": run_bytes,
            "runs_panel_step": cols * run_bytes,
        }
        if self.transposed:
            for region in ("codes", "runs"):
                along_k, panel = f"{region}_k_step", f"{region}_panel_step"
                steps[along_k], steps[panel] = steps[panel], steps[along_k]
        return join(
            OperandJob,
            {
                "transposed": self.transposed,
                "codes": self.codes_at,
                "runs": self.runs_at,
                "run_beats": self.packed.run_beats,
                **steps,
            },
        )

    def format(self):
        return join(OperandFormat, {"signed": self.tensor.signed, "k": self.tensor.k, "threshold": self.tensor.threshold})


def operand(rng, config, rows, cols, bits, transposed, ratio, memory):
    """Random codes and outliers, appended to `memory`."""
    if transposed:
        rows, cols = cols, rows
    generator = np.random.default_rng(rng.getrandbits(32))
    signed = bool(rng.randrange(2))
    tensor = OaqTensor(
        generator.integers(0, 2**bits, (rows, cols)).astype(np.uint8),
        generator.random((rows, cols)) < ratio,
        bits,
        signed,
        rng.randint(1, 2 ** (bits - signed) - 1),
        rng.randrange(4),
    )
    run_stride = tensor.pack(config).run_beats + rng.randrange(2)
    packed = tensor.pack(config, run_stride)
    codes_at = len(memory)
    memory += packed.codes
    runs_at = len(memory)
    memory += packed.runs
    return Operand(tensor, transposed, codes_at, runs_at, run_stride, packed)


class Memory:
    """Read DMA and memory behind it: answers every command in order, one beat a cycle at most, as the pattern allows."""

    def __init__(self, dut, config, memory, patterns, latency=0):
        self.dut, self.config, self.memory, self.patterns, self.latency = dut, config, memory, patterns, latency
        self.beats = self.cycle = 0
        self.queue = []
        self.addresses = []

    def start(self):
        return [cocotb.start_soon(self.data()), cocotb.start_soon(self.commands())]

    async def commands(self):
        bus = self.config.bus_bytes
        while True:
            word = (await bench.receive(self.dut, "read_command", 1, self.patterns[0]))[0]
            address, beats = word & 2**32 - 1, word >> 32
            assert address % bus == 0 and beats and address + beats * bus <= len(self.memory), f"{beats} beats at {address:#x}"
            self.addresses.append(address)
            due = self.cycle + self.latency
            self.queue += [(due, int.from_bytes(self.memory[address + i * bus :][:bus], "little")) for i in range(beats)]

    async def data(self):
        dut = self.dut
        offered = False
        while True:
            if not offered:
                offered = bool(self.queue) and self.queue[0][0] <= self.cycle and next(self.patterns[1])
            dut.read_data__valid.value = int(offered)
            if offered:
                dut.read_data__payload.value = self.queue[0][1]
            await ReadOnly()
            if offered and int(dut.read_data__ready.value):
                self.queue.pop(0)
                self.beats += 1
                offered = False
            await RisingEdge(dut.clk)
            self.cycle += 1


class Buffers:
    """Mirrors the banks, counts loaded tiles, and frees halves: the oldest step's when all its tiles have arrived and the pattern agrees."""

    def __init__(self, dut, config):
        self.dut = dut
        width = 5 * config.block
        self.banks = {side: Banks(config.block, width) for side in SIDES}
        self.loaded = []
        self.snapshots = []

    async def run(self):
        dut = self.dut
        while True:
            await FallingEdge(dut.clk)
            for side in SIDES:
                if getattr(dut, f"write_{side}").value:
                    self.banks[side].write(int(dut.write_group.value), int(dut.write_address.value), int(dut.write_data.value))
            assert not (dut.a_loaded.value and dut.w_loaded.value)
            for number, side in enumerate(SIDES):
                if getattr(dut, f"{side}_loaded").value:
                    self.loaded.append(number)


async def release(dut, side):
    port = getattr(dut, f"{side}_released")
    port.value = 1
    await RisingEdge(dut.clk)
    port.value = 0


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


async def start(dut):
    for port in ("start", "a_released", "w_released", "read_command__ready", "read_data__valid", "read_data__payload"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return CONFIGS[bench.parameters()["config"]], random.Random(random.getrandbits(32))


async def begin(dut, config, product, operands):
    dut.job.value = job(product, config)
    dut.a.value, dut.w.value = (o.job(config) for o in operands)
    dut.a_format.value, dut.w_format.value = (o.format() for o in operands)
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


async def product_loads(dut, config, product, operands, memory, patterns, latency=0):
    """Runs one product, checking each tile's words when it is reported; returns the cycles, and the memory that was read."""
    expected = list(loads(product, config))
    dma, buffers = Memory(dut, config, memory, patterns, latency), Buffers(dut, config)
    tasks = [*dma.start(), cocotb.start_soon(buffers.run())]
    await begin(dut, config, product, operands)
    taken = {0: 0, 1: 0}  # halves taken so far
    cycles, checked, idle = 0, 0, 0
    freed = {0: 0, 1: 0}
    while checked < len(expected):
        await RisingEdge(dut.clk)
        cycles += 1
        idle += 1
        while checked < len(buffers.loaded):
            load = expected[checked]
            assert buffers.loaded[checked] == load.side, f"tile {checked}: {load}"
            for side, takes in enumerate((load.takes_a, load.takes_w)):
                taken[side] += takes
                assert taken[side] <= freed[side] + 2, f"tile {checked} overwrites a half in use"
            for (bank, address), word in bank_words(
                operands[load.side].tensor, load, product, config, operands[load.side].transposed
            ).items():
                assert buffers.banks[SIDES[load.side]].read(bank, address) == word, (
                    f"tile {checked}, bank {bank}, address {address}"
                )
            checked, idle = checked + 1, 0
        # The passes end in the order of the steps: a half is freed once the step after it has begun to load, or cannot.
        for side in (0, 1):
            if taken[side] - freed[side] == 2 and idle > 3 and next(patterns[2]):
                freed[side] += 1
                await release(dut, SIDES[side])
                cycles += 1
        assert idle < 2000, f"nothing loaded for {idle} cycles after tile {checked} of {len(expected)}"
    for _ in range(5):
        await RisingEdge(dut.clk)
    assert len(buffers.loaded) == len(expected) and not dut.read_command__valid.value and not dut.malformed.value
    for task in tasks:
        task.cancel()
    dut.read_data__valid.value = 0
    await bench.reset(dut)
    return cycles, dma


def fitting(config, rng):
    """Products whose groups fit half a bank: corners, then random ones."""
    s, half = config.tile, config.bank_words // 2

    def words(chunk, eight_bit):
        return [s // banks * chunk * (s // config.block) * (1 + eight_bit) for banks in (config.rows, config.output_cols)]

    yield Product(1, 1, 1, False, 1, 1, 1)
    yield Product(2 * s, 2 * s, 5 * s - 3, True, 1, 1, 2)
    for _ in range(10):
        m, n, k = (rng.randint(1, 4 * s) for _ in range(3))
        eight_bit, k_tiles = bool(rng.randrange(2)), -(-k // s)
        chunk = rng.randint(1, min(k_tiles, half // max(words(1, eight_bit))))
        groups = [1, 1]
        if chunk == k_tiles:
            groups = [rng.randint(1, min(5, half // w)) for w in words(chunk, eight_bit)]
        yield Product(m, n, k, eight_bit, groups[0], groups[1], chunk)


def pair(rng, config, product, memory, ratio, transposed):
    bits = 8 if product.eight_bit else 4
    return [
        operand(rng, config, rows, product.k, bits, turned, ratio, memory)
        for rows, turned in zip((product.m, product.n), transposed, strict=True)
    ]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_products(dut):
    config, rng = await start(dut)
    names = list(bench.PATTERNS)
    for turn, product in enumerate(fitting(config, rng)):
        memory = bytearray()
        operands = pair(rng, config, product, memory, rng.choice((0, 0.03, 0.3, 1)), (turn & 1, turn >> 1 & 1))
        chosen = [bench.PATTERNS[names[i]](rng.getrandbits(32)) for i in (turn % 4, turn // 2 % 4, turn // 4 % 4)]
        await product_loads(dut, config, product, operands, memory, chosen, latency=rng.choice((0, 7)))


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_a_beat_every_cycle(dut):
    """With few outliers nothing but the first tile's latency is lost between the beats of the bus."""
    config, rng = await start(dut)
    s = config.tile
    for transposed in (False, True):
        product = Product(3 * s, 3 * s, 2 * s, False, 3, 3, 2)
        if any(3 * 2 * s // banks * s // config.block > config.bank_words // 2 for banks in (config.rows, config.output_cols)):
            product = Product(2 * s, 2 * s, 2 * s, False, 2, 2, 2)
        memory = bytearray()
        operands = pair(rng, config, product, memory, 0, (transposed, transposed))
        flow = [bench.always(), bench.always(), bench.always()]
        cycles, dma = await product_loads(dut, config, product, operands, memory, flow)
        assert dma.beats == (config.tile_beats(4) + 1) * len(list(loads(product, config)))
        assert cycles <= dma.beats + 12, f"{cycles} cycles for {dma.beats} beats"


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_segments_come_a_tile_ahead(dut):
    """Also from one step to the next, as long as there is a half to load into."""
    config, rng = await start(dut)
    s, memory = config.tile, bytearray()
    product = Product(2 * s, s, 2 * s, False, 1, 1, 2)
    operands = pair(rng, config, product, memory, 0.1, (False, False))
    _, dma = await product_loads(dut, config, product, operands, memory, [bench.always(), bench.always(), bench.always()])
    regions = [(o.codes_at, o.runs_at) for o in operands]
    kinds = [
        "segment" if max(at for at in sum(regions, ()) if at <= a) in (runs for _, runs in regions) else "codes"
        for a in dma.addresses
    ]
    tiles_to_load = len(list(loads(product, config)))
    assert kinds == ["segment", *["segment", "codes"] * (tiles_to_load - 1), "codes"]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_malformed_segment_stops_the_writes(dut):
    """The tile whose segment is damaged is never reported, and nothing is written after that."""
    config, rng = await start(dut)
    s, bus = config.tile, config.bus_bytes
    product = Product(2 * s, 2 * s, s, False, 2, 2, 1)
    order = list(loads(product, config))
    for damaged in range(len(order)):
        memory = bytearray()
        operands = pair(rng, config, product, memory, 0.1, (False, False))
        load = order[damaged]
        victim = operands[load.side]
        at = victim.runs_at + load.panel * victim.run_stride * bus
        memory[at : at + 2] = b"\xff\xff"  # a count that no segment can hold
        dma, buffers = Memory(dut, config, memory, [bench.always(), bench.mostly(0.7, damaged)]), Buffers(dut, config)
        tasks = [*dma.start(), cocotb.start_soon(buffers.run())]
        await begin(dut, config, product, operands)
        for _ in range(2000):
            await FallingEdge(dut.clk)
            if dut.malformed.value:
                break
        assert dut.malformed.value
        await RisingEdge(dut.clk)
        reported, written = len(buffers.loaded), {side: dict(buffers.banks[side].words) for side in SIDES}
        assert reported <= damaged
        for _ in range(200):
            await RisingEdge(dut.clk)
        assert dut.malformed.value and len(buffers.loaded) == reported
        assert written == {side: buffers.banks[side].words for side in SIDES}, "written after a malformed segment"
        for task in tasks:
            task.cancel()
        dut.read_data__valid.value = 0
        await bench.reset(dut)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config, rng = await start(dut)
    s = config.tile
    product = Product(2 * s, s, s, False, 1, 1, 1)
    memory = bytearray()
    operands = pair(rng, config, product, memory, 0.1, (False, True))
    for cycles in (1, 4, 9, 20, 33):
        tasks = Memory(dut, config, memory, [bench.always(), bench.always()]).start()
        await begin(dut, config, product, operands)
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        for task in tasks:
            task.cancel()
        dut.read_data__valid.value, dut.read_command__ready.value = 0, 0
        await bench.reset(dut)
    await product_loads(dut, config, product, operands, memory, [bench.always(), bench.always(), bench.always()])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_loader(config):
    from nibblecore.hdl.ltoaq.operands.loader import Loader

    bench.run(Loader(config), __file__, "loader", parameters={"config": config.name})


def test_golden_loads_every_tile_of_k_for_every_panel():
    """Of a whole K each A panel is loaded once for every group of W, each W panel once; addresses stay in one half."""
    rng = random.Random(4)
    for config in (TINY, PAPER):
        for product in fitting(config, rng):
            m_tiles, n_tiles, k_tiles = product.tiles(config)
            seen = [(load.side, load.panel, load.along_k) for load in loads(product, config)]
            if not product.chunked(config):
                w_groups = -(-n_tiles // product.w_group)
                wanted = [(0, panel, k) for panel in range(m_tiles) for k in range(k_tiles) for _ in range(w_groups)]
                wanted += [(1, panel, k) for panel in range(n_tiles) for k in range(k_tiles)]
                assert sorted(seen) == sorted(wanted)
            else:
                assert {(side, panel, k) for side, panel, k in seen} == {
                    (side, panel, k)
                    for side, count in ((0, m_tiles), (1, n_tiles))
                    for panel in range(count)
                    for k in range(k_tiles)
                }
