import random
from collections import Counter

import bench
import cocotb
import pytest
from axi_memory import DECERR, EXOKAY, SLVERR, AxiMemory, clear_in, watch_error
from cocotb.triggers import ReadOnly, RisingEdge

BASE, SIZE = 0x8000_0000, 1 << 18


def command(address, beats):
    return address | beats << 32


def random_commands(rng, bus_bytes, count, longest):
    """Ends and starts close to 4 KiB boundaries, single beats, and anything."""
    commands = []
    for _ in range(count):
        beats = rng.choice([1, 2, 16, rng.randint(1, 12), rng.randint(1, longest)])
        page = BASE + 4096 * rng.randrange(1, SIZE // 4096 - beats * bus_bytes // 4096 - 2)
        near = bus_bytes * rng.randint(-beats - 1, 2)
        address = page + rng.choice([near, bus_bytes * rng.randrange(4096 // bus_bytes)])
        commands.append((max(address, BASE), beats))
    return commands


def quiet(dut):
    for port in ("command__valid", "command__payload", "data__ready", "abandon", "clear"):
        getattr(dut, port).value = 0


async def start(dut, **options):
    quiet(dut)
    memory = AxiMemory(dut, SIZE, base=BASE, **options)
    memory.fill(1)
    await bench.start(dut)
    return memory


def expected(memory, commands):
    return [memory.beat(address + i * memory.bus_bytes) for address, beats in commands for i in range(beats)]


async def check_idle(dut, memory):
    """Idle never shows while a beat is to come of a command that was taken, while the memory owes one or one waits."""
    owed = 0
    while True:
        await ReadOnly()
        if int(dut.idle.value):
            assert memory.outstanding_reads == 0 and not int(dut.data__valid.value) and not int(dut.m_axi__arvalid.value)
            assert owed == 0, f"idle, and {owed} beats are to come"
        if int(dut.command__valid.value) and int(dut.command__ready.value):
            owed += int(dut.command__payload.value) >> 32
        owed -= int(dut.data__valid.value) and int(dut.data__ready.value)
        await RisingEdge(dut.clk)


async def run_commands(dut, memory, commands, command_pattern="always", data_pattern="always", seed=1):
    watch = cocotb.start_soon(check_idle(dut, memory))
    words = [command(*item) for item in commands]
    cocotb.start_soon(bench.send(dut, "command", words, bench.PATTERNS[command_pattern](seed)))
    wanted = expected(memory, commands)
    got = await bench.receive(dut, "data", len(wanted), bench.PATTERNS[data_pattern](seed + 1))
    assert got == wanted
    for _ in range(2):
        await RisingEdge(dut.clk)
    await ReadOnly()
    assert int(dut.idle.value) and not int(dut.data__valid.value)
    await RisingEdge(dut.clk)
    watch.cancel()


@cocotb.test()
@cocotb.parametrize(case=range(8))
async def bench_stalls(dut, case):
    names = list(bench.PATTERNS)
    rng = random.Random(100 + case)
    draw = {port: "always" if case == 0 else rng.choice(names) for port in ("command", "data", "ar", "r")}
    memory = await start(dut, latency=(1, 60), patterns={"ar": draw["ar"], "r": draw["r"]}, seed=case)
    commands = random_commands(rng, memory.bus_bytes, 40, 60)
    await run_commands(dut, memory, commands, draw["command"], draw["data"], case)
    assert sum(beats for _, beats in memory.reads) == sum(beats for _, beats in commands)
    assert max(beats for _, beats in memory.reads) <= bench.parameters()["max_burst"]


@cocotb.test()
async def bench_long_command(dut):
    memory = await start(dut, latency=5)
    await run_commands(dut, memory, [(BASE + 3 * memory.bus_bytes, 5000), (BASE, 1)])


@cocotb.test()
@cocotb.parametrize(scattered=[False, True])
async def bench_throughput(dut, scattered):
    """At least 0.98 beats a cycle from a memory 40 cycles away."""
    memory = await start(dut, latency=40)
    rng = random.Random(2)
    span = 16 * memory.bus_bytes
    places = [rng.randrange(SIZE // span) if scattered else number for number in range(250)]
    offset = 4 * memory.bus_bytes if bench.parameters()["max_burst"] > 16 else 0
    commands = [(BASE + place * span, 16) for place in places]
    if scattered:
        commands = [(max(address - offset, BASE), beats) for address, beats in commands]
    cocotb.start_soon(bench.send(dut, "command", [command(*item) for item in commands]))
    dut.data__ready.value = 1
    await RisingEdge(dut.data__valid)
    first = memory.cycle
    got = await bench.receive(dut, "data", 16 * len(commands))
    cycles = memory.cycle - first
    assert got == expected(memory, commands)
    dut._log.info(f"{len(got)} beats in {cycles} cycles, {len(got) / cycles:.4f} a cycle")
    assert len(got) / cycles >= 0.98


@cocotb.test()
@cocotb.parametrize(excess=[0, 4])
async def bench_throughput_formula(dut, excess):
    """Bursts of 4 beats: full speed up to the latency of the contract, less beyond."""
    covered = (bench.parameters()["max_outstanding"] - 1) * 4 - 1
    memory = await start(dut, latency=covered + excess)
    commands = [(BASE + 4 * memory.bus_bytes * number, 4) for number in range(200)]
    cocotb.start_soon(bench.send(dut, "command", [command(*item) for item in commands]))
    dut.data__ready.value = 1
    await RisingEdge(dut.data__valid)
    first = memory.cycle
    await bench.receive(dut, "data", 4 * len(commands))
    rate = 4 * len(commands) / (memory.cycle - first)
    assert (rate >= 0.995) == (excess == 0), f"{rate:.4f} beats a cycle"


@cocotb.test()
async def bench_latency(dut):
    memory = await start(dut, latency=10)
    dut.data__ready.value = 1
    cocotb.start_soon(bench.send(dut, "command", [command(BASE, 1)]))
    seen: dict[str, int] = {}
    for cycle in range(30):
        await ReadOnly()
        for port in ("command__valid", "m_axi__arvalid", "m_axi__rvalid", "data__valid"):
            if int(getattr(dut, port).value):
                seen.setdefault(port, cycle)
        await RisingEdge(dut.clk)
    assert seen["m_axi__arvalid"] - seen["command__valid"] == 2
    assert seen["data__valid"] - seen["m_axi__rvalid"] == 1
    assert memory.reads == [(BASE, 1)]


@cocotb.test()
async def bench_outstanding_is_bounded(dut):
    memory = await start(dut, latency=1)
    cocotb.start_soon(bench.send(dut, "command", [command(BASE, 5000)]))
    for _ in range(200):
        await RisingEdge(dut.clk)
    assert len(memory.reads) == bench.parameters()["max_outstanding"]


@cocotb.test()
async def bench_odd_commands(dut):
    """No beats: nothing happens. Address not aligned: its low bits are ignored."""
    memory = await start(dut)
    cocotb.start_soon(bench.send(dut, "command", [command(BASE, 0), command(BASE + 64 + 5, 2), command(BASE, 0), command(BASE, 1)]))
    wanted = expected(memory, [(BASE + 64, 2), (BASE, 1)])
    assert await bench.receive(dut, "data", 3) == wanted
    assert len(memory.reads) == 2


@cocotb.test()
async def bench_errors(dut):
    """A beat with an error is delivered; `error` stays until cleared; a clear in any cycle round the beat, and the beat wins."""
    memory = await start(dut, latency=3)
    met: Counter[tuple[int, bool]] = Counter()
    watch = cocotb.start_soon(watch_error(dut, "r", met))
    bad = BASE + 7 * memory.bus_bytes
    memory.errors = {bad}
    await run_commands(dut, memory, [(BASE, 7), (bad + memory.bus_bytes, 9)])
    assert not int(dut.error.value)
    outside = BASE + SIZE - memory.bus_bytes, 2
    for memory.refusal, commands in ((EXOKAY, [(BASE, 16)]), (SLVERR, [(BASE, 16)]), (DECERR, [outside])):
        before = met.copy()
        for cycle in range(2 + sum(beats for _, beats in commands) + 8):
            clear = cocotb.start_soon(clear_in(dut, cycle))
            await run_commands(dut, memory, commands)
            await clear
            await run_commands(dut, memory, [(BASE, 4)])
            await clear_in(dut, 0)
            assert not int(dut.error.value)
        refused = met - before
        assert refused[memory.refusal, True] == 1 and refused[memory.refusal, False] == cycle
    assert not watch.done()


@cocotb.test()
@cocotb.parametrize(case=range(6))
async def bench_abandon(dut, case):
    rng = random.Random(case)
    patterns = {"ar": rng.choice(["always", "rare"]), "r": rng.choice(["always", "random", "bursts"])}
    memory = await start(dut, latency=(1, 50), patterns=patterns, seed=case)
    for _ in range(12):
        commands = random_commands(rng, memory.bus_bytes, 30, 100)
        sender = cocotb.start_soon(bench.send(dut, "command", [command(*item) for item in commands]))
        data_ready = rng.random() < 0.7
        dut.data__ready.value = int(data_ready)
        for _ in range(rng.randint(0, 150)):
            await RisingEdge(dut.clk)
        dut.abandon.value = 1
        await ReadOnly()
        waiting = int(dut.m_axi__arvalid.value)
        asked = len(memory.reads)
        while True:
            assert not int(dut.data__valid.value)
            idle = int(dut.idle.value)
            await RisingEdge(dut.clk)
            if idle:
                break
            await ReadOnly()
        assert len(memory.reads) <= asked + 1 and len(memory.reads) - asked in (0, waiting)
        sender.cancel()
        dut.command__valid.value = 0
        dut.abandon.value = 0
        assert memory.outstanding_reads == 0
        await run_commands(dut, memory, random_commands(rng, memory.bus_bytes, 3, 40))


@cocotb.test()
async def bench_abandon_drops_commands(dut):
    memory = await start(dut)
    dut.abandon.value = 1
    await bench.send(dut, "command", [command(BASE, 9)] * 5)
    dut.abandon.value = 0
    for _ in range(10):
        await RisingEdge(dut.clk)
    assert memory.reads == [] and int(dut.idle.value)


@cocotb.test()
async def bench_reset_midflow(dut):
    memory = await start(dut, latency=(1, 40), patterns={"r": "random"})
    rng = random.Random(4)
    for _ in range(10):
        commands = random_commands(rng, memory.bus_bytes, 10, 100)
        sender = cocotb.start_soon(bench.send(dut, "command", [command(*item) for item in commands]))
        dut.data__ready.value = rng.randrange(2)
        for _ in range(rng.randint(1, 120)):
            await RisingEdge(dut.clk)
        sender.cancel()
        quiet(dut)
        await bench.reset(dut)
        await ReadOnly()
        assert int(dut.idle.value) and not int(dut.m_axi__arvalid.value) and not int(dut.data__valid.value)
        await RisingEdge(dut.clk)
        await run_commands(dut, memory, random_commands(rng, memory.bus_bytes, 3, 40))


@pytest.mark.parametrize("bus_bytes, max_burst, max_outstanding", [(8, 16, 16), (32, 64, 8)])
def test_reader(bus_bytes, max_burst, max_outstanding):
    from nibblecore.hdl.bus.reader import AxiReader

    reader = AxiReader(bus_bytes, max_burst, max_outstanding)
    parameters = {"max_burst": max_burst, "max_outstanding": max_outstanding}
    bench.run(reader, __file__, f"axi_reader_{8 * bus_bytes}", parameters=parameters)


@pytest.mark.parametrize("arguments", [(8, 3), (8, 512), (32, 256), (12,), (8, 16, 0)])
def test_illegal_parameters(arguments):
    from nibblecore.hdl.bus.reader import AxiReader

    with pytest.raises(ValueError):
        AxiReader(*arguments)
