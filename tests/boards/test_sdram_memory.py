"""Bursts of both directions and bytes of the link, all at once, on a modelled chip that fails on a command out of its time."""

import random
from collections import deque
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

import bench
import cocotb
import pytest
from axi_memory import DECERR, OKAY, Channel
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.boards.chips import SDRAM_32M, SdramTiming
from nibblecore.hdl.boards.sdram_memory import SdramMemory
from nibblecore.sim.golden.boards.block_memory import BlockMemory as Golden
from nibblecore.sim.perf.sdram_chip import Sdram

CHIP = SDRAM_32M
TIMINGS = {mhz: replace(CHIP.timing(1_000_000 * mhz), power_up=40) for mhz in (25, 133)}
PINS = ("command", "bank", "address", "mask", "data_out", "drive")
PAGE_BYTES = 4096
BEYOND = 0xFFFF_F000


@dataclass
class Write:
    """A byte's new value, in memory from some cycle between `began` and `ended` on, if it is `certain` to come there."""

    value: int
    began: float
    ended: float
    by_bus: bool
    certain: bool = True

    def after(self, other: "Write") -> bool:
        return self.began > other.ended or (self.by_bus and other.by_bus and self.began > other.began)


class Bytes:
    """What each byte can be: writes of bus and link may overlap."""

    def __init__(self, data):
        self.writes = [[Write(byte, -1, -1, False)] for byte in data]

    def put(self, address, write, since):
        writes = self.writes[address]
        if len(writes) > 4:
            writes[:] = [each for each in writes if self._seen(address, each, since)]
        writes.append(write)

    def could_be(self, address, since):
        """At any time from cycle `since` on."""
        return {write.value for write in self.writes[address] if self._seen(address, write, since)}

    def _seen(self, address, write, since):
        return not any(each.certain and each.ended < since and each.after(write) for each in self.writes[address])


class Manager:
    """The chip at the pins; drives what is queued on every channel, and checks every answer.

    A byte that is read, for the bus or for the link, was there at some time between the transfer of its address and its first offer.
    `paces` has for each of ar, r, aw, w, b, request and response a name of `bench.PATTERNS`, or "never".
    """

    def __init__(self, dut, parameters):
        self.dut = dut
        timing, size = SdramTiming(**parameters["timing"]), parameters["size"]
        self.chip = Sdram(CHIP, timing)
        self.bus_bytes = len(dut.s_axi__wstrb)
        words = self.bus_bytes // 2
        # Of the link: what is at work and a refresh between, each with the rows that it opens and closes.
        self.patience = words + 2 * (timing.longest + timing.rfc + timing.rcd) + 2 * timing.cas + 12
        self.twin = Golden(self.bus_bytes, size)
        self.twin.data[:] = random.Random("contents").randbytes(size)
        for address in range(0, size, 2):
            self.chip.words[address // 2] = int.from_bytes(self.twin.data[address : address + 2], "little")
        self.bytes = Bytes(self.twin.data)
        self.cycle = 0
        self.pins = [getattr(dut, f"pins__{name}") for name in PINS]
        self.set_paces(ALWAYS)
        self.channels = {
            name: Channel(dut, "s_axi", name, parts) for name, parts in (("r", ("data", "resp", "last")), ("b", ("resp",)))
        }
        self.queues: dict[str, deque[Any]] = {name: deque() for name in ("ar", "aw", "w", "request")}
        self.read = self.written = self.by_link = self.refusals = self.refused = self.expected = self.longest_wait = 0
        self.forget()
        self.drive()
        cocotb.start_soon(self.run())

    def set_paces(self, paces):
        patterns = bench.PATTERNS | {"never": lambda seed: bench.mostly(0, seed)}
        self.paces = {name: patterns[pace](f"{self.cycle} {name}") for name, pace in paces.items()}

    def forget(self):
        for queue in self.queues.values():
            queue.clear()
        self.offered = dict.fromkeys(self.queues, False)
        self.reads: deque[list[int]] = deque()  # [address, beats left, cycle]
        self.answers: deque[tuple[int, list[Write]]] = deque()  # of each burst whose address was offered: response, and its writes
        self.byte: Any = None  # of the link's request: (cycle, address, its write)
        self.asked_at = self.first_offer = None
        for channel in self.channels.values():
            channel.forget()

    @property
    def idle(self):
        return not any((*self.queues.values(), self.reads, self.answers, self.byte))

    def queue_read(self, address, beats):
        self.queues["ar"].append({"addr": address, "len": beats - 1})

    def queue_write(self, address, beats):
        outcome = self.twin.response(address)
        writes: list[Write] = []
        self.queues["aw"].append({"addr": address, "len": len(beats) - 1})
        self.answers.append((outcome, writes))
        for place, (word, strobe) in enumerate(beats):
            at, last = address + place * self.bus_bytes, place == len(beats) - 1
            self.queues["w"].append(({"data": word, "strb": strobe, "last": int(last)}, at, writes))

    def drive(self):
        for name in ("ar", "aw", "w"):
            queue = self.queues[name]
            self.offered[name] = bool(queue) and (self.offered[name] or next(self.paces[name]))
            getattr(self.dut, f"s_axi__{name}valid").value = int(self.offered[name])
            if self.offered[name]:
                for part, value in (queue[0][0] if name == "w" else queue[0]).items():
                    getattr(self.dut, f"s_axi__{name}{part}").value = value
        requests = self.queues["request"]
        self.offered["request"] = bool(requests) and (self.offered["request"] or next(self.paces["request"]))
        self.dut.memory_request__valid.value = int(self.offered["request"])
        if self.offered["request"]:
            address, write, byte = requests[0]
            self.asked_at = self.asked_at or self.cycle
            self.dut.memory_request__payload.value = address | write << 32 | byte << 33
        for name, port in (("r", "s_axi__rready"), ("b", "s_axi__bready"), ("response", "memory_response__ready")):
            getattr(self.dut, port).value = int(next(self.paces[name]))

    def put(self, address, byte, by_bus):
        write = Write(byte, self.cycle, inf, by_bus)
        since = min([self.cycle, *(burst[2] for burst in self.reads), *([self.byte[0]] if self.byte else [])])
        self.bytes.put(address, write, since)
        return write

    def sample(self):
        dut, taken = self.dut, {}
        for name in ("ar", "aw", "w"):
            if self.offered[name] and getattr(dut, f"s_axi__{name}ready").value:
                taken[name] = self.queues[name].popleft()
                self.offered[name] = False
        if "w" in taken:
            beat, address, writes = taken["w"]
            outside = self.twin.response(address) != OKAY
            self.expected += outside
            for lane in range(self.bus_bytes):
                if beat["strb"] >> lane & 1 and not outside:
                    writes.append(self.put(address + lane, beat["data"] >> 8 * lane & 0xFF, True))
            self.written += 1
        self.sample_link()
        if "ar" in taken:
            self.reads.append([taken["ar"]["addr"], taken["ar"]["len"] + 1, self.cycle])
        self.sample_read()
        answer = self.channels["b"].sample()
        if dut.s_axi__bvalid.value:
            assert self.answers, "an answer to nothing"
            for write in self.answers[0][1]:
                write.ended = min(write.ended, self.cycle)
        if answer:
            expected, _ = self.answers.popleft()
            assert answer["resp"] == expected and len(self.queues["aw"]) <= len(self.answers), "an answer before its address"
            self.refusals += expected == DECERR
        self.refused += int(dut.refused.value)
        if not self.idle and (self.reads or "ar" in taken):
            assert dut.busy.value or taken or self.reads[-1][2] >= self.cycle - 1, "not busy with a burst that was taken"

    def sample_link(self):
        dut = self.dut
        if self.byte:
            began, address, write = self.byte
            if dut.memory_response__valid.value:
                self.longest_wait = max(self.longest_wait, self.cycle - self.asked_at) if self.asked_at else self.longest_wait
                self.asked_at = None
                if write:
                    write.ended = min(write.ended, self.cycle)
                else:
                    legal = self.bytes.could_be(address, began)
                    assert int(dut.memory_response__payload.value) in legal, f"byte {address:#x}"
                if dut.memory_response__ready.value:
                    self.byte = None
                    self.by_link += 1
        else:
            assert not dut.memory_response__valid.value, "an answer to nothing"
        if self.asked_at:
            assert self.cycle - self.asked_at <= self.patience, "the link was held up"
        if self.offered["request"] and dut.memory_request__ready.value:
            assert not self.byte, "two requests at once"
            address, write, byte = self.queues["request"].popleft()
            self.offered["request"] = False
            self.byte = self.cycle, address, self.put(address, byte, False) if write else None

    def sample_read(self):
        if not self.channels["r"].valid.value:
            assert not self.channels["r"].sample()
            return
        assert self.reads, "a beat of no burst"
        burst = self.reads[0]
        inside = self.twin.response(burst[0]) == OKAY
        if self.first_offer is None:
            self.first_offer = [self.bytes.could_be(burst[0] + lane, burst[2]) for lane in range(self.bus_bytes * inside)]
        beat = self.channels["r"].sample()
        if beat is None:
            return
        assert beat["last"] == (burst[1] == 1) and beat["resp"] == (OKAY if inside else DECERR)
        self.refusals += not inside
        self.expected += not inside
        for lane, legal in enumerate(self.first_offer):
            assert beat["data"] >> 8 * lane & 0xFF in legal, f"byte {burst[0] + lane:#x}"
        burst[:] = burst[0] + self.bus_bytes, burst[1] - 1, burst[2]
        self.first_offer = None
        self.read += 1
        if not burst[1]:
            self.reads.popleft()

    async def run(self):
        while True:
            await ReadOnly()
            if not self.dut.rst.value:
                self.sample()
            word = self.chip.edge(*(int(pin.value) for pin in self.pins))
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            self.dut.pins__data_in.value = word
            self.drive()

    async def finish(self, cycles=100_000):
        for _ in range(cycles):
            if self.idle:
                return
            await RisingEdge(self.dut.clk)
        raise AssertionError("something was never answered")

    async def reset(self, cycles):
        """What was on its way may or may not be in memory."""
        self.queues["w"].clear()
        for write in [write for _, writes in self.answers for write in writes] + (
            [self.byte[2]] if self.byte and self.byte[2] else []
        ):
            if write.ended == inf:
                write.ended, write.certain = self.cycle, False
        self.forget()
        self.drive()
        await bench.reset(self.dut, cycles)


ALWAYS = dict.fromkeys(("ar", "r", "aw", "w", "b", "request", "response"), "always")


def random_burst(rng, manager, hot):
    """Mostly within the `hot` bytes at one place, sometimes at the end of the memory or beyond it; never across a page."""
    size, bus_bytes = len(manager.twin.data), manager.bus_bytes
    beats = rng.choice([1, 1, 2, 3, 4, rng.randint(1, 32)])
    start = rng.choice([0, 0, 0, 0, size - PAGE_BYTES, size, 1 << rng.randrange(14, 32), BEYOND])
    place = rng.choice([rng.randrange(hot), PAGE_BYTES - beats * bus_bytes, rng.randrange(PAGE_BYTES)])
    place = max(0, min(place, PAGE_BYTES - beats * bus_bytes)) // bus_bytes * bus_bytes
    return start + place, beats


def queue_anything(rng, manager, count, hot=64):
    full, size = (1 << manager.bus_bytes) - 1, len(manager.twin.data)
    for _ in range(count):
        manager.queue_read(*random_burst(rng, manager, hot))
        address, beats = random_burst(rng, manager, hot)
        strobes = [rng.choice([full, rng.getrandbits(manager.bus_bytes), 0]) for _ in range(beats)]
        manager.queue_write(address, [(rng.getrandbits(8 * manager.bus_bytes), strobe) for strobe in strobes])
        for _ in range(rng.randrange(8)):
            at = rng.choice([rng.randrange(hot), rng.randrange(size), size - 1])
            manager.queues["request"].append((at, rng.randrange(2), rng.randrange(256)))


async def check_contents(manager):
    for address in range(0, len(manager.twin.data), PAGE_BYTES // 2):
        manager.queue_read(address, PAGE_BYTES // 2 // manager.bus_bytes)
    await manager.finish()


async def serial(manager):
    """One after the other: to the byte what the golden twin says."""
    rng, twin, bus_bytes = random.Random(5), manager.twin, manager.bus_bytes
    for number in range(40):
        at = rng.randrange(0, 4 * bus_bytes, bus_bytes)
        word, strobe = rng.getrandbits(8 * bus_bytes), rng.getrandbits(bus_bytes)
        if number % 2:
            manager.queue_write(at, [(word, strobe)])
            twin.write(at, word, strobe)
        else:
            manager.queues["request"].append((at, 1, word & 0xFF))
            twin.write(at, word & 0xFF, 1)
        await manager.finish()
        at = rng.randrange(0, 4 * bus_bytes, bus_bytes)
        manager.queue_read(at, 1)
        await manager.finish()
        assert [manager.bytes.could_be(at + lane, manager.cycle) for lane in range(bus_bytes)] == [
            {byte} for byte in twin.data[at : at + bus_bytes]
        ]


async def traffic(manager):
    rng = random.Random(bench.parameters()["seed"])
    for _ in range(6):
        manager.set_paces({name: rng.choice(list(bench.PATTERNS)) for name in ALWAYS})
        queue_anything(rng, manager, 12)
        await manager.finish()
    manager.set_paces(ALWAYS)
    assert manager.refusals > 20 and manager.by_link > 120 and manager.refused == manager.expected
    await check_contents(manager)


async def resets(manager):
    """Bursts are forgotten, contents stay."""
    rng = random.Random(3)
    for _ in range(14):
        queue_anything(rng, manager, 4)
        for _ in range(rng.randrange(120)):
            await RisingEdge(manager.dut.clk)
        await manager.reset(rng.choice([1, 2, 100]))
    queue_anything(rng, manager, 4)
    await manager.finish()
    await check_contents(manager)


async def held_up(manager):
    """Beats that are not taken or do not come hold up neither the other direction nor the link."""
    for channel in ("r", "b", "w"):
        manager.set_paces(ALWAYS | {channel: "never"})
        manager.queue_read(0, 8)
        manager.queue_read(PAGE_BYTES, 8)
        manager.queue_write(PAGE_BYTES, [(number, 255) for number in range(16)])
        manager.queue_write(0, [(number, 255) for number in range(16)])
        for _ in range(40 * manager.bus_bytes):
            await RisingEdge(manager.dut.clk)
        assert (len(manager.reads) == 2) == (channel == "r")
        assert len(manager.answers) == {"r": 0, "b": 2, "w": 2}[channel]
        before = manager.by_link
        manager.queues["request"] += [(7, 1, 77), (7, 0, 0), (9, 0, 0)]
        for _ in range(4 * manager.patience):
            await RisingEdge(manager.dut.clk)
        assert manager.by_link == before + 3
        manager.set_paces(ALWAYS)
        await manager.finish()


async def bandwidth(manager):
    """Of what the chip can carry, two bytes a cycle."""
    beats = PAGE_BYTES // 8 // manager.bus_bytes
    for kind in ("read", "write", "both"):
        began, bursts = manager.cycle, 8
        for number in range(bursts):
            address = number * beats * manager.bus_bytes % len(manager.twin.data)
            if kind in ("read", "both"):
                manager.queue_read(address, beats)
            if kind in ("write", "both"):
                manager.queue_write((address + PAGE_BYTES // 4) % len(manager.twin.data), [(number, 1)] * beats)
        read, written = manager.read, manager.written
        while not manager.idle:
            await RisingEdge(manager.dut.clk)
            ahead = manager.read - read - manager.written + written
            assert kind != "both" or abs(ahead) <= 2 * beats + 8, "a direction's turn does not come"
        words = bursts * beats * manager.bus_bytes // 2 * (1 + (kind == "both"))
        share = words / (manager.cycle - began)
        manager.dut._log.info(f"{kind}: {share:.1%} of the chip's bandwidth")
        assert share >= {"read": 0.9, "write": 0.9, "both": 0.8}[kind]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_memory(dut):
    """All in one, for power comes once."""
    manager = Manager(dut, bench.parameters())
    await bench.start(dut)
    for _ in range(250):  # until the chip is ready
        await RisingEdge(dut.clk)
    await serial(manager)
    await traffic(manager)
    await resets(manager)
    await held_up(manager)
    await bandwidth(manager)
    dut._log.info(f"the link waited for {manager.longest_wait} of {manager.patience} cycles")


@pytest.mark.parametrize(("bus_bytes", "mhz"), [(8, 25), (32, 133)])
def test_sdram_memory(bus_bytes, mhz):
    size = 2 * PAGE_BYTES
    block = SdramMemory(bus_bytes, size, CHIP, TIMINGS[mhz])
    parameters = {"size": size, "timing": asdict(TIMINGS[mhz]), "seed": 1}
    bench.run(block, __file__, f"sdram_memory_{bus_bytes}", parameters=parameters)


@pytest.mark.parametrize("size", [0, PAGE_BYTES + 8, CHIP.bytes + PAGE_BYTES])
def test_size(size):
    with pytest.raises(ValueError, match="positive multiple of 4096, at most the chip's 33554432"):
        SdramMemory(8, size, CHIP, TIMINGS[25])


def test_narrow_bus():
    with pytest.raises(ValueError, match="a beat must have 8 bytes or more, not 4"):
        SdramMemory(4, PAGE_BYTES, CHIP, TIMINGS[25])
