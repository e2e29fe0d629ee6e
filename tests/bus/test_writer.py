import random
from collections import Counter

import bench
import cocotb
import numpy as np
import pytest
from axi_memory import DECERR, EXOKAY, SLVERR, AxiMemory, clear_in, watch_error
from cocotb.triggers import ReadOnly, RisingEdge

BASE, SIZE = 0x8000_0000, 1 << 18


def command(address, beats):
    return address | beats << 32


def random_commands(rng, bus_bytes, count, longest):
    """Ends and starts close to 4 KiB boundaries, single beats, and anything; regions overlap."""
    commands = []
    for _ in range(count):
        beats = rng.choice([1, 2, 16, rng.randint(1, 12), rng.randint(1, longest)])
        page = BASE + 4096 * rng.randrange(1, SIZE // 4096 - beats * bus_bytes // 4096 - 2)
        near = bus_bytes * rng.randint(-beats - 1, 2)
        address = page + rng.choice([near, bus_bytes * rng.randrange(4096 // bus_bytes)])
        commands.append((max(address, BASE), beats))
    return commands


def random_beats(rng, bus_bytes, count):
    full = (1 << bus_bytes) - 1
    return [(rng.getrandbits(8 * bus_bytes), rng.choice([full, full, 0, rng.getrandbits(bus_bytes)])) for _ in range(count)]


def store(model, bus_bytes, commands, beats):
    """The commands, carried out byte by byte on a plain array."""
    beats = iter(beats)
    for address, count in commands:
        for beat in range(count):
            word, strobe = next(beats)
            for lane in range(bus_bytes):
                if strobe >> lane & 1:
                    model[address - BASE + beat * bus_bytes + lane] = word >> 8 * lane & 0xFF


def quiet(dut):
    for port in ("command__valid", "command__payload", "data__valid", "data__payload", "abandon", "clear"):
        getattr(dut, port).value = 0


async def start(dut, **options):
    quiet(dut)
    memory = AxiMemory(dut, SIZE, base=BASE, **options)
    memory.fill(1)
    await bench.start(dut)
    return memory


async def check_idle(dut, memory):
    """Idle never shows while the memory owes a response."""
    while True:
        await ReadOnly()
        if int(dut.idle.value):
            assert memory.outstanding_writes == 0 and not int(dut.m_axi__awvalid.value) and not int(dut.m_axi__wvalid.value)
        await RisingEdge(dut.clk)


async def until_idle(dut, limit=4000):
    for _ in range(limit):
        await ReadOnly()
        idle = int(dut.idle.value)
        await RisingEdge(dut.clk)
        if idle:
            return
    raise AssertionError(f"not idle after {limit} cycles")


def start_sending(dut, memory, commands, beats, command_pattern="always", data_pattern="always", seed=1):
    words = [command(*item) for item in commands]
    payloads = [word | strobe << 8 * memory.bus_bytes for word, strobe in beats]
    return (
        cocotb.start_soon(bench.send(dut, "command", words, bench.PATTERNS[command_pattern](seed))),
        cocotb.start_soon(bench.send(dut, "data", payloads, bench.PATTERNS[data_pattern](seed + 1))),
    )


async def run_commands(dut, memory, commands, rng, command_pattern="always", data_pattern="always", seed=1):
    watch = cocotb.start_soon(check_idle(dut, memory))
    beats = random_beats(rng, memory.bus_bytes, sum(count for _, count in commands))
    model = memory.data.copy()
    store(model, memory.bus_bytes, commands, beats)
    for sender in start_sending(dut, memory, commands, beats, command_pattern, data_pattern, seed):
        await sender
    await until_idle(dut)
    assert np.array_equal(memory.data, model)
    watch.cancel()


@cocotb.test()
@cocotb.parametrize(case=range(9))
async def bench_stalls(dut, case):
    names = list(bench.PATTERNS)
    rng = random.Random(200 + case)
    draw = {port: "always" if case == 0 else rng.choice(names) for port in ("command", "data", "aw", "w", "b")}
    patterns = {channel: draw[channel] for channel in ("aw", "w", "b")}
    order = ["any", "data first", "address first"][case % 3]
    memory = await start(dut, latency=(1, 60), patterns=patterns, order=order, seed=case)
    commands = random_commands(rng, memory.bus_bytes, 40, 60)
    await run_commands(dut, memory, commands, rng, draw["command"], draw["data"], case)
    assert sum(beats for _, beats in memory.writes) == sum(beats for _, beats in commands)
    assert max(beats for _, beats in memory.writes) <= bench.parameters()["max_burst"]
    assert not int(dut.error.value)


@cocotb.test()
async def bench_long_command(dut):
    memory = await start(dut, latency=5)
    await run_commands(dut, memory, [(BASE + 3 * memory.bus_bytes, 5000), (BASE, 1)], random.Random(1))


@cocotb.test()
@cocotb.parametrize(scattered=[False, True])
async def bench_throughput(dut, scattered):
    """At least 0.98 beats a cycle to a memory that answers after 40 cycles."""
    memory = await start(dut, latency=40)
    rng = random.Random(2)
    span = 16 * memory.bus_bytes
    commands = [(BASE + span * (rng.randrange(SIZE // span) if scattered else number), 16) for number in range(250)]
    beats = random_beats(rng, memory.bus_bytes, 16 * len(commands))
    model = memory.data.copy()
    store(model, memory.bus_bytes, commands, beats)
    senders = start_sending(dut, memory, commands, beats)
    await RisingEdge(dut.m_axi__wvalid)
    first = memory.cycle
    for sender in senders:
        await sender
    cycles = memory.cycle - first
    dut._log.info(f"{len(beats)} beats in {cycles} cycles, {len(beats) / cycles:.4f} a cycle")
    assert len(beats) / cycles >= 0.98
    await until_idle(dut)
    assert np.array_equal(memory.data, model)


@cocotb.test()
@cocotb.parametrize(excess=[0, 4])
async def bench_throughput_formula(dut, excess):
    """Bursts of 4 beats: full speed up to the latency of the contract, less beyond."""
    covered = (bench.parameters()["max_outstanding"] - 1) * 4 - 2
    memory = await start(dut, latency=covered + excess)
    commands = [(BASE + 4 * memory.bus_bytes * number, 4) for number in range(200)]
    senders = start_sending(dut, memory, commands, random_beats(random.Random(1), memory.bus_bytes, 800))
    await RisingEdge(dut.m_axi__wvalid)
    first = memory.cycle
    for sender in senders:
        await sender
    rate = 800 / (memory.cycle - first)
    assert (rate >= 0.995) == (excess == 0), f"{rate:.4f} beats a cycle"


@cocotb.test()
async def bench_latency(dut):
    memory = await start(dut, latency=10)
    start_sending(dut, memory, [(BASE, 2)], [(1, 1), (2, 1)])
    seen: dict[str, int] = {}
    for cycle in range(30):
        await ReadOnly()
        for port in ("command__valid", "m_axi__awvalid", "data__ready", "m_axi__wvalid"):
            if int(getattr(dut, port).value):
                seen.setdefault(port, cycle)
        await RisingEdge(dut.clk)
    assert seen["m_axi__awvalid"] - seen["command__valid"] == 2
    assert seen["data__ready"] == seen["m_axi__awvalid"]
    assert seen["m_axi__wvalid"] - seen["data__ready"] == 1
    assert memory.writes == [(BASE, 2)]


@cocotb.test()
async def bench_outstanding_is_bounded(dut):
    memory = await start(dut, patterns={"b": "always"}, latency=100_000)
    start_sending(dut, memory, [(BASE, 5000)], random_beats(random.Random(1), memory.bus_bytes, 5000))
    bound = bench.parameters()["max_outstanding"]
    for _ in range(bound * bench.parameters()["max_burst"] + 200):
        await RisingEdge(dut.clk)
    assert len(memory.writes) == bound


@cocotb.test()
async def bench_data_waits_for_address(dut):
    """Data offered before any command stays where it is."""
    memory = await start(dut)
    start_sending(dut, memory, [], [(5, 1)])
    for _ in range(20):
        await ReadOnly()
        assert not int(dut.data__ready.value) and not int(dut.m_axi__wvalid.value)
        await RisingEdge(dut.clk)
    await bench.send(dut, "command", [command(BASE, 0), command(BASE + 64 + 5, 1)])  # no beats: nothing; low bits: ignored
    await until_idle(dut)
    assert memory.writes == [(BASE + 64, 1)] and memory.data[64] == 5


@cocotb.test()
async def bench_late_data(dut):
    """The address is put up without data; the writer is not idle until they have come."""
    memory = await start(dut)
    start_sending(dut, memory, [(BASE, 4)], [])
    for _ in range(50):
        await RisingEdge(dut.clk)
    assert memory.writes == [(BASE, 4)] and not int(dut.idle.value)
    start_sending(dut, memory, [], [(i + 1, 1) for i in range(4)])
    await until_idle(dut)
    assert [int(memory.data[i * memory.bus_bytes]) for i in range(4)] == [1, 2, 3, 4]


@cocotb.test()
async def bench_errors(dut):
    """`error` stays until cleared; a clear in any cycle round the answer, and the answer wins."""
    memory = await start(dut, latency=3)
    met: Counter[tuple[int, bool]] = Counter()
    watch = cocotb.start_soon(watch_error(dut, "b", met))
    rng = random.Random(3)
    memory.errors = {BASE + 7 * memory.bus_bytes}
    await run_commands(dut, memory, [(BASE, 7), (BASE + 8 * memory.bus_bytes, 9)], rng)
    assert not int(dut.error.value)
    middle, outside = (BASE + 4 * memory.bus_bytes, 8), (BASE + SIZE - memory.bus_bytes, 2)
    for memory.refusal, command in ((EXOKAY, middle), (SLVERR, middle), (DECERR, outside)):
        before = met.copy()
        for cycle in range(command[1] + 12):
            clear = cocotb.start_soon(clear_in(dut, cycle))
            for sender in start_sending(dut, memory, [command], random_beats(rng, memory.bus_bytes, command[1])):
                await sender
            await until_idle(dut)
            await clear
            await run_commands(dut, memory, [(BASE + 1024, 4)], rng)
            await clear_in(dut, 0)
            assert not int(dut.error.value)
        refused = met - before
        assert refused[memory.refusal, True] == 1 and refused[memory.refusal, False] == cycle
    assert not watch.done()


@cocotb.test()
@cocotb.parametrize(case=range(6))
async def bench_abandon(dut, case):
    """What is written is a prefix of what was to be written, the rest untouched; no burst is left unfinished."""
    rng = random.Random(case)
    patterns = {channel: rng.choice(["always", "random", "rare"]) for channel in ("aw", "w", "b")}
    order = ["any", "data first", "address first"][case % 3]
    memory = await start(dut, latency=(1, 50), patterns=patterns, order=order, seed=case)
    for _ in range(10):
        commands = random_commands(rng, memory.bus_bytes, 30, 100)
        beats = random_beats(rng, memory.bus_bytes, sum(count for _, count in commands))
        before = memory.data.copy()
        senders = start_sending(dut, memory, commands, beats, "always", rng.choice(["always", "random", "rare"]), case)
        taken = 0
        for _ in range(rng.randint(0, 150)):
            await ReadOnly()
            taken += int(dut.data__valid.value) & int(dut.data__ready.value)
            await RisingEdge(dut.clk)
        dut.abandon.value = 1
        await ReadOnly()
        waiting, asked = int(dut.m_axi__awvalid.value), len(memory.writes)
        await RisingEdge(dut.clk)
        await until_idle(dut)
        assert len(memory.writes) - asked in (0, waiting)
        for sender in senders:
            sender.cancel()
        quiet(dut)
        assert memory.outstanding_writes == 0
        cut, left = [], taken
        for address, count in commands:
            cut.append((address, min(count, left)))
            left -= cut[-1][1]
        store(before, memory.bus_bytes, cut, beats)
        assert np.array_equal(memory.data, before)
        await run_commands(dut, memory, random_commands(rng, memory.bus_bytes, 3, 40), rng)


@cocotb.test()
async def bench_abandon_drops_what_is_offered(dut):
    memory = await start(dut)
    dut.abandon.value = 1
    for sender in start_sending(dut, memory, [(BASE, 9)] * 5, [(1, 1)] * 7):
        await sender
    dut.abandon.value = 0
    for _ in range(10):
        await RisingEdge(dut.clk)
    assert memory.writes == [] and int(dut.idle.value)


@cocotb.test()
async def bench_reset_midflow(dut):
    memory = await start(dut, latency=(1, 40), patterns={"w": "random"})
    rng = random.Random(4)
    for _ in range(10):
        commands = random_commands(rng, memory.bus_bytes, 10, 100)
        beats = random_beats(rng, memory.bus_bytes, sum(count for _, count in commands))
        senders = start_sending(dut, memory, commands, beats)
        for _ in range(rng.randint(1, 120)):
            await RisingEdge(dut.clk)
        for sender in senders:
            sender.cancel()
        quiet(dut)
        await bench.reset(dut)
        await ReadOnly()
        assert int(dut.idle.value) and not int(dut.m_axi__awvalid.value) and not int(dut.m_axi__wvalid.value)
        await RisingEdge(dut.clk)
        await run_commands(dut, memory, random_commands(rng, memory.bus_bytes, 3, 40), rng)


@pytest.mark.parametrize("bus_bytes, max_burst, max_outstanding", [(8, 16, 8), (32, 64, 5)])
def test_writer(bus_bytes, max_burst, max_outstanding):
    from nibblecore.hdl.bus.writer import AxiWriter

    writer = AxiWriter(bus_bytes, max_burst, max_outstanding)
    parameters = {"max_burst": max_burst, "max_outstanding": max_outstanding}
    bench.run(writer, __file__, f"axi_writer_{8 * bus_bytes}", parameters=parameters)


@pytest.mark.parametrize("arguments", [(8, 3), (8, 512), (32, 256), (12,), (8, 16, 0)])
def test_illegal_parameters(arguments):
    from nibblecore.hdl.bus.writer import AxiWriter

    with pytest.raises(ValueError):
        AxiWriter(*arguments)
