import random
from dataclasses import replace

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.config import TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.command.descriptor import Opcode, pack
from nibblecore.hdl.ltoaq.command.job import MatrixShape, OutputJob, RawJob, TensorSummary, TileIndex
from nibblecore.hdl.ltoaq.output.output_stage import OutputStage
from nibblecore.hdl.ltoaq.output.quantizer import Quantizer
from nibblecore.hdl.ltoaq.output.tensor_statistics import TensorStatistics
from nibblecore.hdl.ltoaq.output.threshold_gradient import ThresholdGradient
from nibblecore.hdl.memory import Memory
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq.output.output_stage import Summary, tensor
from nibblecore.sim.golden.ltoaq.output.quantizer import quantize
from nibblecore.sim.golden.ltoaq.output.raw_writer import lines
from nibblecore.sim.golden.ltoaq.output.threshold_gradient import threshold_gradient
from structs import join, split

TWO_SLICES = LtoaqConfig(name="two_slices", rows=8, cols=16, tile=16, bus_bytes=32, bank_words=256, runs_per_cycle=2)
CONFIGS = {config.name: config for config in (TINY, TWO_SLICES)}
KINDS = ("tensor", "raw", "gradient")


class Command:
    """A random command with its tiles, and what must come of it."""

    def __init__(self, config, kind, rng, tiles=None, bits=None):
        self.config, self.kind = config, kind
        s, bus = config.tile, config.bus_bytes
        rows, cols = rng.randint(1, 3), rng.randint(1, 2)
        self.m, self.n = (edge * s - rng.randrange(s) for edge in (rows, cols))
        self.places = [(row, col) for row in range(rows) for col in range(cols)]
        rng.shuffle(self.places)
        generator = np.random.default_rng(rng.getrandbits(32))
        spread, count = 2.0 ** rng.randrange(2, 30), len(self.places) * (2 if kind == "gradient" else 1)
        words = generator.laplace(0, spread, (count, s, s)) if tiles is None else tiles
        self.tiles = list(np.clip(words, -(2**31), 2**31 - 1).astype(np.int64))
        self.q = QuantizerParameters.for_range(
            alpha := spread * rng.uniform(0.3, 3),
            alpha * rng.uniform(1.01, 9),
            1.0,
            bits or rng.choice([4, 8]),
            bool(rng.randrange(2)),
            bool(rng.randrange(2)),
        )
        # A finer step than the host would choose: normal values saturate, too.
        self.q = replace(self.q, shift=max(0, self.q.shift - rng.choice([0, 0, 1, 2])))
        at, stride = (bus * rng.randrange(1 << 20) for _ in range(2)), config.max_run_beats
        self.target = {
            "codes": next(at),
            "runs": next(at),
            "run_stride": stride,
            "codes_row_step": cols * config.tile_beats(self.q.bits) * bus,
            "runs_tile_step": stride * bus,
            "runs_row_step": cols * stride * bus,
        }
        self.raw = {"address": bus * rng.randrange(100), "pitch": -(-4 * self.n // bus) * bus + bus * rng.randrange(3)}

    @property
    def opcode(self):
        return Opcode.THRESHOLD_GRAD if self.kind == "gradient" else Opcode.GEMM

    def drive(self, dut):
        """Everything that is constant while the command runs."""
        q, s = self.q, self.config.tile
        descriptor = pack(
            opcode=self.opcode,
            raw_output=self.kind == "raw",
            relu=q.relu,
            out_eight_bit=q.bits == 8,
            out_signed=q.signed,
            out_k=q.k,
            alpha=q.alpha,
            multiplier=q.multiplier,
            shift=q.shift,
        )
        dut.descriptor.value, dut.q_max.value = int.from_bytes(descriptor, "little"), q.q_max
        dut.target.value, dut.raw.value = join(OutputJob, self.target), join(RawJob, self.raw)
        shape = {"m": self.m, "n": self.n, "m_tiles": -(-self.m // s), "n_tiles": -(-self.n // s)}
        dut.shape.value = join(MatrixShape, shape)

    def expected(self):
        """Bursts, and the members of the summary that mean something."""
        if self.kind == "gradient":
            x, g = np.array(self.tiles[::2]), np.array(self.tiles[1::2])
            return [], {"gradient": threshold_gradient(x, g, self.q) % 2**64}
        tiles = [(row, col, words) for (row, col), words in zip(self.places, self.tiles, strict=True)]
        if self.kind == "raw":
            place = self.m, self.n, self.raw["address"], self.raw["pitch"], self.config
            return [line for row, col, words in tiles for line in lines(words, row, col, *place)], {}
        bursts, summary = tensor(tiles, self.q, self.target, self.config)
        return bursts, summary._asdict()


class Harness:
    """The tile buffer, which fills as the command's tiles come; and a watch on reads and on the summary."""

    def __init__(self, dut, config):
        self.dut, self.config = dut, config
        self.tiles, self.announced, self.cycle, self.idle, self.writes = [], 0, 0, 0, True
        self.last_read, self.changes, self.tasks = 0, {}, []

    async def run(self):
        dut, c = self.dut, self.config.output_cols
        before, taken = split(TensorSummary, 0), False
        while True:
            dut.full.value, dut.full_next.value = int(len(self.tiles) > 0), int(len(self.tiles) > 1)
            await ReadOnly()
            self.idle = 0 if self.tiles or dut.busy.value else self.idle + 1
            reads, other, done = int(dut.read_enable.value), int(dut.read_other.value), int(dut.consumed.value)
            row, part = int(dut.read_row.value), int(dut.read_part.value)
            assert dut.busy.value or not (taken or reads or dut.write_command__valid.value or dut.write_data__valid.value)
            taken = self.writes and dut.tile__valid.value and dut.tile__ready.value
            now = self.summary()
            self.changes |= {name: self.cycle for name in now if now[name] != before[name]}
            before = now
            if reads:
                data = bench.pack(self.tiles[other][row, part * c : part * c + c].tolist(), 32)
                if not other:
                    self.last_read = self.cycle
            await RisingEdge(dut.clk)
            self.cycle += 1
            if reads:
                dut.read_data.value = data
            if done:
                self.tiles.pop(0)

    async def supply(self, command, pattern):
        """Tiles become full some time after they were announced, two at a time."""
        for number, tile in enumerate(command.tiles):
            place = number // 2 if command.kind == "gradient" else number
            while len(self.tiles) == 2 or self.announced <= place or not next(pattern):
                await RisingEdge(self.dut.clk)
            self.tiles.append(tile)
            await RisingEdge(self.dut.clk)

    async def announce(self, command, pattern):
        for row, col in command.places:
            await bench.send(self.dut, "tile", [join(TileIndex, {"row": row, "col": col})], pattern)
            self.announced += 1

    def summary(self):
        return split(TensorSummary, int(self.dut.summary.value))

    def begin(self, command, patterns):
        """Starts to put the command's tiles in."""
        command.drive(self.dut)
        self.writes = command.kind != "gradient"
        coroutines = self.run(), self.announce(command, patterns[0]), self.supply(command, patterns[1])
        self.tasks = [cocotb.start_soon(coroutine) for coroutine in coroutines]

    def end(self):
        for task in self.tasks:
            task.cancel()
        for port in ("tile__valid", "full", "full_next", "write_command__ready", "write_data__ready"):
            getattr(self.dut, port).value = 0


async def start(dut):
    for port in ("overflow", "full", "full_next", "read_data", "tile__valid", "write_command__ready", "write_data__ready"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return CONFIGS[bench.parameters()["config"]], random.Random(random.getrandbits(32))


async def carry_out(dut, command, patterns):
    """One command from reset: every burst, and the summary in the first cycle in which the controller may look at it."""
    await bench.reset(dut)
    config = command.config
    bursts, expected = command.expected()
    harness = Harness(dut, config)
    harness.begin(command, patterns)
    commands = cocotb.start_soon(bench.receive(dut, "write_command", len(bursts), patterns[2]))
    data = cocotb.start_soon(bench.receive(dut, "write_data", sum(len(beats) for _, beats in bursts), patterns[3]))
    assert [(word & 2**32 - 1, word >> 32) for word in await commands] == [(at, len(beats)) for at, beats in bursts]
    bus = config.bus_bytes
    for word, (value, strobe) in zip(await data, (beat for _, beats in bursts for beat in beats), strict=True):
        mask = sum(0xFF << 8 * byte for byte in range(bus) if strobe >> byte & 1)
        assert (word >> 8 * bus, word & mask) == (strobe, value)
    for task in harness.tasks[1:]:
        await task
    dut.write_command__ready.value = dut.write_data__ready.value = 1
    settled = OutputStage.settle_cycles(config)
    while harness.idle < settled + 20:
        await ReadOnly()
        assert not dut.write_command__valid.value and not dut.write_data__valid.value
        if harness.idle >= settled:
            summary = harness.summary()
            assert {name: summary[name] for name in expected} == expected, f"{harness.idle} cycles after the end"
        await RisingEdge(dut.clk)
    assert not dut.run_overflow.value
    harness.end()
    return harness


@cocotb.test(timeout_time=500, timeout_unit="us")
async def bench_commands(dut):
    """Every kind of command with every pattern at every place."""
    config, rng = await start(dut)
    names = list(bench.PATTERNS)
    for turn in range(4 * len(names)):
        chosen = [names[turn % 4], names[turn // 4 % 4], names[(turn + turn // 4) % 4], names[(turn + 2 * (turn // 4) + 1) % 4]]
        for kind in KINDS:
            command = Command(config, kind, rng)
            await carry_out(dut, command, [bench.PATTERNS[name](rng.getrandbits(32)) for name in chosen])


@cocotb.test(timeout_time=20, timeout_unit="us")
async def bench_latest_words_take_as_long_as_the_controller_waits(dut):
    """All is in the last words that are read: the summary changes when the components' latencies say, and none takes longer."""
    config, rng = await start(dut)
    s, lanes = config.tile, config.block
    longest = 0
    for kind in ("tensor", "gradient"):
        command = Command(config, kind, rng, np.zeros((12, s, s)), bits=8)
        command.places = [(0, 0)]
        command.tiles = [np.zeros((s, s), np.int64) for _ in range(2 if kind == "gradient" else 1)]
        command.tiles[0][-1, -1] = 2**31 - 1
        command.q = QuantizerParameters(bits=8, signed=True, alpha=100, multiplier=128, shift=8, k=0, threshold=50)
        if kind == "gradient":
            # Half a step, for an error that is not zero.
            command.tiles[0][-1, -1], command.tiles[1][-1, -lanes:] = 1, 1
        harness = await carry_out(dut, command, [bench.always() for _ in range(4)])
        took = {name: cycle - harness.last_read for name, cycle in harness.changes.items() if name != "run_beats"}
        count = Memory.READ_LATENCY + Quantizer.LATENCY + TensorStatistics.COUNT_LATENCY
        if kind == "tensor":
            largest = Memory.READ_LATENCY + TensorStatistics.magnitude_latency(config.output_cols)
            assert took == {"x_max": largest, "outliers": count, "saturations": count}
        else:
            assert took == {"gradient": Memory.READ_LATENCY + Quantizer.LATENCY + ThresholdGradient.LATENCY}
        longest = max(longest, *took.values())
    assert longest == OutputStage.settle_cycles(config)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def bench_segment_longer_than_the_stride(dut):
    """It is not written, and nothing after it; the flag stays."""
    config, rng = await start(dut)
    s = config.tile
    tiles = np.stack([np.zeros((s, s)), np.full((s, s), 1 << 30), np.zeros((s, s))])
    command = Command(config, "tensor", rng, tiles, bits=4)
    command.places = [(0, 0), (0, 1), (0, 2)]
    command.target["run_stride"] = 1
    bursts, _ = command.expected()
    assert [len(beats) for _, beats in bursts[1::2]] == [1, config.max_run_beats, 1]
    await bench.reset(dut)
    harness = Harness(dut, config)
    harness.begin(command, [bench.always()] * 2)
    seen, flags = [], []
    dut.write_command__ready.value = dut.write_data__ready.value = 1
    for _ in range(8 * s * s):
        await ReadOnly()
        if dut.write_command__valid.value:
            seen.append(int(dut.write_command__payload.value) & 2**32 - 1)
        flags.append(bool(dut.run_overflow.value))
        await RisingEdge(dut.clk)
    assert seen == [at for at, _ in bursts[:3]]
    assert not flags[0] and flags[-1] and flags == sorted(flags) and dut.busy.value
    harness.end()


@cocotb.test(timeout_time=10, timeout_unit="us")
async def bench_overflow_of_a_sum_is_passed_on(dut):
    config, rng = await start(dut)
    Command(config, "tensor", rng).drive(dut)
    for value in (1, 0):
        dut.overflow.value = value
        await ReadOnly()
        assert split(TensorSummary, int(dut.summary.value))["overflow"] == value
        await RisingEdge(dut.clk)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def bench_reset_in_the_middle(dut):
    """Whatever was under way, the next command is right."""
    config, rng = await start(dut)
    for kind in KINDS * 4:
        await bench.reset(dut)
        harness = Harness(dut, config)
        harness.begin(Command(config, kind, rng), [bench.always()] * 2)
        dut.write_command__ready.value, dut.write_data__ready.value = 1, rng.randrange(2)
        for _ in range(rng.randint(2, 3 * config.tile)):
            await RisingEdge(dut.clk)
        harness.end()
        await carry_out(dut, Command(config, rng.choice(KINDS), rng), [bench.mostly(0.7, rng.getrandbits(32)) for _ in range(4)])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_output_stage(config):
    bench.run(OutputStage(config), __file__, "output_stage", parameters={"config": config.name})


def test_golden_tensor_makes_the_packed_tensor():
    """Written into memory, the bursts of all tiles are the tensor as the host packs it."""
    rng = random.Random(5)
    for config in CONFIGS.values():
        for bits in (4, 8):
            command = Command(config, "tensor", rng, bits=bits)
            s, (rows, cols) = config.tile, (max(edge) + 1 for edge in zip(*command.places, strict=True))
            order = [command.places.index((row, col)) for row in range(rows) for col in range(cols)]
            whole = np.array(command.tiles)[order].reshape(rows, cols, s, s).transpose(0, 2, 1, 3).reshape(rows * s, cols * s)
            bursts, summary = tensor(
                [(*place, tile) for place, tile in zip(command.places, command.tiles, strict=True)],
                command.q,
                command.target,
                config,
            )
            result = quantize(whole, command.q)
            packed = OaqTensor(
                result.codes.astype(np.uint8), result.outlier, bits, command.q.signed, command.q.threshold, command.q.k
            ).pack(config, command.target["run_stride"])
            memory = {at: b"".join(value.to_bytes(config.bus_bytes, "little") for value, _ in beats) for at, beats in bursts}
            tile_bytes, segment = config.tile_beats(bits) * config.bus_bytes, command.target["runs_tile_step"]
            for number in range(rows * cols):
                codes, runs = command.target["codes"] + number * tile_bytes, command.target["runs"] + number * segment
                assert memory[codes] == packed.codes[number * tile_bytes : (number + 1) * tile_bytes]
                assert memory[runs].ljust(segment, b"\0") == packed.runs[number * segment : (number + 1) * segment]
            assert summary == Summary(packed.run_beats, result.x_max, result.outliers, result.saturations)
