import random

import bench
import cocotb
import pytest
from axi_memory import EXOKAY, SLVERR, AxiMemory, Channel
from cocotb.triggers import ReadOnly, RisingEdge, Timer
from nibblecore.hdl.bus.read_arbiter import AxiReadArbiter

BASE, SIZE = 0x8000_0000, 1 << 16
ADDRESS = ("araddr", "arlen", "arsize", "arburst", "arcache", "arprot")


def signal(dut, port, name):
    return getattr(dut, f"ports__{port}__{name}")


def quiet(dut):
    for port in range(bench.parameters()["ports"]):
        for name in (*ADDRESS, "arvalid", "rready"):
            signal(dut, port, name).value = 0


async def start(dut, **options):
    quiet(dut)
    memory = AxiMemory(dut, SIZE, base=BASE, **options)
    memory.fill(1)
    memory.errors = set(range(BASE, BASE + SIZE, 13 * memory.bus_bytes))
    memory.refusal = random.choice((EXOKAY, SLVERR))
    await bench.start(dut)
    return memory


def random_bursts(rng, bus_bytes, count, longest=16):
    bursts = []
    for _ in range(count):
        beats = rng.choice([1, 1, 2, rng.randint(1, longest)])
        page = BASE + 4096 * rng.randrange(SIZE // 4096)
        bursts.append((page + bus_bytes * rng.randrange(4096 // bus_bytes - beats + 1), beats))
    return bursts


async def ask(dut, port, bursts, pattern, size):
    """Offer every burst; its cache and protection bits say which port and which burst it is of."""
    valid, ready = signal(dut, port, "arvalid"), signal(dut, port, "arready")
    for number, (address, beats) in enumerate(bursts):
        while not next(pattern):
            await RisingEdge(dut.clk)
        for name, value in zip(ADDRESS, (address, beats - 1, size, 1, port, number % 8), strict=True):
            signal(dut, port, name).value = value
        valid.value = 1
        while True:
            await ReadOnly()
            taken = bool(ready.value)
            await RisingEdge(dut.clk)
            if taken:
                break
        valid.value = 0


async def take(dut, port, bursts, pattern, memory):
    """Every beat of every burst with its data, response and mark, in order."""
    channel = Channel(dut, f"ports__{port}", "r", ("data", "resp", "last"))
    for address, beats in bursts:
        for place in range(address, address + beats * memory.bus_bytes, memory.bus_bytes):
            data, response = memory._access(place)
            expected = {"data": data, "resp": response, "last": int(place == address + (beats - 1) * memory.bus_bytes)}
            while True:
                channel.ready.value = int(next(pattern))
                await ReadOnly()
                found = channel.sample()
                await RisingEdge(dut.clk)
                if found is not None:
                    break
            assert found == expected, f"port {port}, {address:#x}: {found} instead of {expected} at {place:#x}"
    channel.ready.value = 0


class Watch:
    """Sees that ports are served in turn, that what was taken is on offer in the next cycle, and that no more than `depth` are under way."""

    def __init__(self, dut, memory):
        self.dut, self.memory, self.served, self.cycles = dut, memory, [], []
        self.task = cocotb.start_soon(self._run())

    async def _run(self):
        dut, ports, depth = self.dut, bench.parameters()["ports"], bench.parameters()["depth"]
        last, asked, under_way = -1, None, 0
        while True:
            await ReadOnly()
            if asked is not None:
                assert dut.m_axi__arvalid.value
                found = tuple(int(getattr(dut, f"m_axi__{name}").value) for name in ADDRESS)
                assert found == asked, f"{found} on offer instead of {asked}"
            asked = None
            offers = [number for number in range(ports) if signal(dut, number, "arvalid").value]
            taken = [number for number in offers if signal(dut, number, "arready").value]
            if taken:
                turn = next((number for number in offers if number > last), offers[0])
                assert taken == [turn], f"ports {taken} served, of {offers} after {last}"
                asked = tuple(int(signal(dut, turn, name).value) for name in ADDRESS)
                last = turn
                self.served.append(turn)
                self.cycles.append(self.memory.cycle)
            moving = [number for number in range(ports) if signal(dut, number, "rvalid").value]
            assert len(moving) <= 1 and (not moving or dut.m_axi__rvalid.value)
            assert under_way <= depth
            under_way += len(taken) - all(getattr(dut, f"m_axi__{name}").value for name in ("rvalid", "rready", "rlast"))
            await RisingEdge(dut.clk)


async def run(dut, memory, bursts, address_patterns, beat_patterns):
    watch = Watch(dut, memory)
    size = (memory.bus_bytes - 1).bit_length()
    tasks = []
    for port, mine in enumerate(bursts):
        tasks.append(cocotb.start_soon(ask(dut, port, mine, address_patterns[port], size)))
        tasks.append(cocotb.start_soon(take(dut, port, mine, beat_patterns[port], memory)))
    for task in tasks:
        await task
    for _ in range(3):
        await RisingEdge(dut.clk)
    await ReadOnly()
    assert not dut.m_axi__arvalid.value and not memory.outstanding_reads
    await RisingEdge(dut.clk)
    watch.task.cancel()
    return watch


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(case=range(14))
async def bench_stalls(dut, case):
    """Random bursts of all ports, or of some; any pattern on AR and R of each port and of memory."""
    ports, names, rng = bench.parameters()["ports"], list(bench.PATTERNS), random.Random(case)
    memory = await start(dut, latency=(1, 30), patterns={"ar": rng.choice(names), "r": rng.choice(names)}, seed=case)
    bursts = [random_bursts(rng, memory.bus_bytes, rng.choice((0, 5, 30))) for _ in range(ports)]
    patterns = [[bench.PATTERNS[rng.choice(names)](rng.getrandbits(32)) for _ in range(ports)] for _ in range(2)]
    await run(dut, memory, bursts, *patterns)
    assert sorted(memory.reads) == sorted(burst for mine in bursts for burst in mine)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(beats=[1, 4])
async def bench_throughput(dut, beats):
    """An address a cycle and a beat a cycle; ports that always offer are served strictly in turn."""
    ports, depth = bench.parameters()["ports"], bench.parameters()["depth"]
    memory = await start(dut, latency=1)
    bursts = [[(BASE + 4096 * port + number * beats * memory.bus_bytes, beats) for number in range(64)] for port in range(ports)]
    watch = await run(dut, memory, bursts, [bench.always() for _ in range(ports)], [bench.always() for _ in range(ports)])
    # A manager of this bench offers its next address in the next cycle, so that one alone is served every cycle, too.
    assert watch.served == [number % ports for number in range(64 * ports)]
    cycles = watch.cycles[-1] - watch.cycles[0]
    if beats == 1 and depth > 3:
        assert cycles == 64 * ports - 1
    if beats == 4 and depth > 2:
        assert cycles <= 4 * 64 * ports


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_full_queue(dut):
    """No more than `depth` bursts under way; one more as soon as one has ended."""
    depth = bench.parameters()["depth"]
    memory = await start(dut, latency=1)
    for name, value in zip(ADDRESS, (BASE, 0, (memory.bus_bytes - 1).bit_length(), 1, 0, 0), strict=True):
        signal(dut, 0, name).value = value
    signal(dut, 0, "arvalid").value = 1
    for _ in range(depth + 20):
        await RisingEdge(dut.clk)
    assert len(memory.reads) == depth and not signal(dut, 0, "arready").value
    signal(dut, 0, "rready").value = 1
    await RisingEdge(dut.clk)
    signal(dut, 0, "rready").value = 0
    for _ in range(20):
        await RisingEdge(dut.clk)
    assert len(memory.reads) == depth + 1


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_no_path_through(dut):
    """In no state does an output of `m_axi` follow one of its inputs within a cycle, whatever ports and memory do."""
    quiet(dut)
    rng, ports = random.Random(5), bench.parameters()["ports"]
    inputs = [getattr(dut, f"m_axi__{name}") for name in ("arready", "rvalid", "rlast", "rresp", "rdata")]
    outputs = [getattr(dut, f"m_axi__{name}") for name in ("arvalid", "rready", *ADDRESS)]
    for handle in inputs:
        handle.value = 0
    await bench.start(dut)
    seen = set()
    for _ in range(400):
        for port in range(ports):
            signal(dut, port, "araddr").value = rng.getrandbits(32)
            signal(dut, port, "arvalid").value, signal(dut, port, "rready").value = rng.randrange(2), rng.randrange(2)
        found = []
        for _ in range(4):
            for handle in inputs:
                handle.value = rng.getrandbits(len(handle))
            await Timer(1, "ns")
            found.append(tuple(int(handle.value) for handle in outputs))
        assert len(set(found)) == 1, found
        seen.add(found[0][:2])
        await RisingEdge(dut.clk)
    assert len(seen) == 4


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    ports, rng = bench.parameters()["ports"], random.Random(6)
    memory = await start(dut, latency=(1, 9), patterns={"r": "random"})
    for _ in range(10):
        bursts = [random_bursts(rng, memory.bus_bytes, 20) for _ in range(ports)]
        tasks = [cocotb.start_soon(ask(dut, port, mine, bench.always(), 3)) for port, mine in enumerate(bursts)]
        tasks += [cocotb.start_soon(take(dut, port, mine, bench.mostly(0.7, port), memory)) for port, mine in enumerate(bursts)]
        for _ in range(rng.randint(1, 80)):
            await RisingEdge(dut.clk)
        for task in tasks:
            task.cancel()
        quiet(dut)
        await bench.reset(dut)
        await ReadOnly()
        assert not dut.m_axi__arvalid.value and not dut.m_axi__rready.value
        await RisingEdge(dut.clk)
        again = [random_bursts(rng, memory.bus_bytes, 4) for _ in range(ports)]
        await run(dut, memory, again, [bench.always() for _ in again], [bench.always() for _ in again])


@pytest.mark.parametrize("ports, depth", [(3, 5), (1, 2), (4, 16)])
def test_read_arbiter(ports, depth):
    bench.run(AxiReadArbiter(8, ports, depth), __file__, f"read_arbiter_{ports}", parameters={"ports": ports, "depth": depth})


@pytest.mark.parametrize("arguments", [(8, 0), (8, 2, 0), (12, 2)])
def test_illegal_parameters(arguments):
    with pytest.raises(ValueError):
        AxiReadArbiter(*arguments)
