"""Bursts of both directions, an engine's columns and bytes of the link against the golden twin: all at once, but bursts and columns."""

import random
from collections import defaultdict, deque
from typing import Any

import bench
import cocotb
import pytest
from axi_memory import DECERR, OKAY, Channel
from cocotb.triggers import ReadOnly, RisingEdge
from dram import OPERANDS, Dram
from nibblecore.hdl.boards.block_memory import BlockMemory
from nibblecore.hdl.config import DramConfig
from nibblecore.sim.boards.synthesis import synthesized
from nibblecore.sim.golden.boards.block_memory import BlockMemory as Golden

PAGE_BYTES = 4096
BEYOND = 0xFFFF_F000


class Engine:
    """Columns as an engine beside the memory has them, at any pace.

    Three operands advance together through pages whose banks are two apart, some of them outside; a page is opened while the one before is
    at work, and every word is written after it was read.
    """

    def __init__(self, dram, rng):
        self.dram, self.rng = dram, rng
        self.forget()

    def forget(self):
        self.says: dict[str, int] = {}
        self._job = None

    @property
    def idle(self):
        return self._job is None

    def begin(self, rows):
        """A job, mostly in the first `rows` rows."""
        rng = self.rng
        first = rng.randrange(self.dram.banks)
        banks = [(first + apart) % self.dram.banks for apart in (0, *rng.choice([(2, 4), (2, 5), (3, 5), (3, 6)]))]
        pages = [rng.randrange(self.dram.rows if rng.random() < 0.2 else rows) * self.dram.banks + bank for bank in banks]
        rng.shuffle(pages)
        self._job = self._cycles(dict(zip(OPERANDS, pages, strict=True)))

    def advance(self):
        """To the next cycle."""
        self.says = {}
        if self._job is not None:
            self.says = next(self._job, {})
            self._job = self._job if self.says else None

    def _cycles(self, first):
        """What is said in each cycle; `first` has the operands' first pages."""
        rng, columns = self.rng, self.dram.columns
        read_at = write_at = rng.randrange(columns)
        end = read_at + rng.randint(1, 2 * columns)
        pages = (end - 1) // columns + 1
        pace = rng.choice([1, 0.7, 0.2])
        opened = closed = 0
        commands: list[tuple[str, int]] = []
        while closed < pages:
            says = {"busy": 1}
            if not commands and opened < min(pages, closed + 2):
                commands = [("activate", first[name] + opened) for name in OPERANDS]
            elif not commands and (write_at == end or write_at // columns > closed):
                commands = [("precharge", first[name] + closed) for name in OPERANDS]
            reads = read_at < end and read_at // columns < opened and rng.random() < pace
            writes = write_at < read_at and rng.random() < pace
            if commands and rng.random() < 0.8:
                what, page = commands.pop(0)
                says |= {what: 1, "bank": page % self.dram.banks, "row": page // self.dram.banks % self.dram.rows}
                if not commands:
                    opened += what == "activate"
                    closed += what == "precharge"
            if reads:
                says |= self._column("read", first, read_at)
            if writes:
                says |= self._column("write", first, write_at) | {f"write_{name}": rng.getrandbits(32) for name in OPERANDS}
            read_at, write_at = read_at + reads, write_at + writes
            yield says

    def _column(self, way, first, at):
        page, column = divmod(at, self.dram.columns)
        banks = {f"{way}_bank_{name}": (first[name] + page) % self.dram.banks for name in OPERANDS}
        return {way: 1, f"{way}_column": column} | banks


class Manager:
    """Drives what is queued on every channel and checks every answer.

    A beat that is read holds, of each byte, something that was there between its address's transfer and its first offer; a byte that is
    read for the link, what was there before or after the cycle of its request. A column of the engine holds what was there before.

    `paces` has for each of ar, r, aw, w, b, request and response a name of `bench.PATTERNS`.
    """

    def __init__(self, dut, size, paces, seed, dram=None):
        self.dut = dut
        self.bus_bytes = len(dut.s_axi__wstrb)
        self.twin = Golden(self.bus_bytes, size, dram)
        self.engine = dram and Engine(dram, random.Random(f"{seed} engine"))
        self.rows = dram and size // (4 * dram.columns * dram.banks)
        self.past = defaultdict(list)  # of each byte: (cycle, what it was before)
        self.cycle = 0
        self.paces = {name: bench.PATTERNS[paces[name]](f"{seed} {name}") for name in paces}
        self.channels = {
            name: Channel(dut, "s_axi", name, parts) for name, parts in (("r", ("data", "resp", "last")), ("b", ("resp",)))
        }
        self.queues: dict[str, deque[Any]] = {name: deque() for name in ("ar", "aw", "w", "request")}
        self.offered = dict.fromkeys(self.queues, False)
        self.forget()
        self.read = self.written = self.bytes = self.refusals = self.columns = self.refused_rows = self.held_up = 0
        self.drive()
        cocotb.start_soon(self.run())

    def forget(self):
        for queue in self.queues.values():
            queue.clear()
        self.offered = dict.fromkeys(self.queues, False)
        self.reads: deque[list[int]] = deque()  # [address, beats left, cycle]
        self.writes: deque[list[int]] = deque()  # [address, beats left]
        self.responses: deque[tuple[int, int]] = deque()
        self.byte = None  # of the link's request: (cycle, write, what it may be)
        self.first_offer = None
        self.found: dict[str, int] = {}  # what the engine reads in this cycle
        if self.engine:
            self.engine.forget()
        for channel in self.channels.values():
            channel.forget()

    @property
    def idle(self):
        return not any((self.queues["request"], self.byte)) and self.bus_idle and (self.engine is None or self.engine.idle)

    @property
    def bus_idle(self):
        return not any((*(self.queues[name] for name in ("ar", "aw", "w")), self.reads, self.writes, self.responses))

    def queue_read(self, address, beats):
        self.queues["ar"].append({"addr": address, "len": beats - 1})

    def queue_write(self, address, beats):
        self.queues["aw"].append({"addr": address, "len": len(beats) - 1})
        self.queues["w"] += [
            {"data": word, "strb": strobe, "last": int(place == len(beats) - 1)} for place, (word, strobe) in enumerate(beats)
        ]

    def drive(self):
        for name in ("ar", "aw", "w"):
            queue = self.queues[name]
            self.offered[name] = bool(queue) and (self.offered[name] or next(self.paces[name]))
            getattr(self.dut, f"s_axi__{name}valid").value = int(self.offered[name])
            for part, value in queue[0].items() if self.offered[name] else ():
                getattr(self.dut, f"s_axi__{name}{part}").value = value
        requests = self.queues["request"]
        self.offered["request"] = bool(requests) and (self.offered["request"] or next(self.paces["request"]))
        self.dut.memory_request__valid.value = int(self.offered["request"])
        if self.offered["request"]:
            address, write, byte = requests[0]
            self.dut.memory_request__payload.value = address | write << 32 | byte << 33
        for name, port in (("r", "s_axi__rready"), ("b", "s_axi__bready"), ("response", "memory_response__ready")):
            getattr(self.dut, port).value = int(next(self.paces[name]))
        if self.engine:
            says = self.engine.says
            for name in ("activate", "precharge", "read", "write"):
                getattr(self.dut, f"dram__{name}").value = says.get(name, 0)
            for name, value in says.items():
                if name != "busy":
                    getattr(self.dut, f"dram__{name}").value = value

    def put(self, address, byte):
        self.past[address].append((self.cycle, self.twin.data[address]))
        self.twin.data[address] = byte

    def could_be(self, address, since):
        """What a byte was at any time from cycle `since` on."""
        return {self.twin.data[address]} | {before for cycle, before in self.past[address] if cycle >= since}

    def sample(self):
        dut, taken = self.dut, {}
        accesses = self.sample_engine(dut, self.engine.says) if self.engine else False
        assert bool(dut.memory_request__ready.value) == (self.byte is None and not accesses), "the link waits, or does not"
        self.held_up += self.offered["request"] and accesses
        for name in ("ar", "aw", "w"):
            if self.offered[name] and getattr(dut, f"s_axi__{name}ready").value:
                taken[name] = self.queues[name].popleft()
                self.offered[name] = False
        if "w" in taken:
            assert self.writes, "a beat was taken before its address"
            burst, beat = self.writes[0], taken["w"]
            response = self.twin.response(burst[0])
            if response == OKAY:
                word = beat["data"].to_bytes(self.bus_bytes, "little")
                for lane in range(self.bus_bytes):
                    if beat["strb"] >> lane & 1:
                        self.put(burst[0] + lane, word[lane])
            burst[:] = burst[0] + self.bus_bytes, burst[1] - 1
            self.written += 1
            if not burst[1]:
                self.writes.popleft()
                self.responses.append((response, self.cycle))
        requested = self.offered["request"] and bool(dut.memory_request__ready.value)
        if requested:
            address, write, byte = self.queues["request"].popleft()
            self.offered["request"] = False
            if write:
                self.put(address, byte)
        self.sample_response(dut)
        if requested:
            self.byte = self.cycle, write, self.could_be(address, self.cycle)
        if "ar" in taken:
            self.reads.append([taken["ar"]["addr"], taken["ar"]["len"] + 1, self.cycle])
        if "aw" in taken:
            self.writes.append([taken["aw"]["addr"], taken["aw"]["len"] + 1])
        self.sample_read()
        answer = self.channels["b"].sample()
        if dut.s_axi__bvalid.value:
            assert self.responses and self.responses[0][1] < self.cycle, "a response before its last beat"
        if answer:
            expected, _ = self.responses.popleft()
            assert answer["resp"] == expected
            self.refusals += expected == DECERR

    def sample_engine(self, dut, says):
        """Whether it accesses columns in this cycle."""
        twin = self.twin
        for name, expected in self.found.items():
            assert int(getattr(dut, f"dram__read_{name}").value) == expected, f"column of {name}"
        self.found = {}
        if "read" in says:
            places = {name: (says[f"read_bank_{name}"], says["read_column"]) for name in OPERANDS}
            self.found = {
                name: twin.read_column(*place)
                for name, place in places.items()
                if twin.response(twin.column_address(*place)) == OKAY
            }
            self.columns += len(self.found)
        if "write" in says:
            for name in OPERANDS:
                address = twin.column_address(says[f"write_bank_{name}"], says["write_column"])
                for lane, byte in enumerate(says[f"write_{name}"].to_bytes(4, "little")):
                    if twin.response(address) == OKAY:
                        self.put(address + lane, byte)
        outside = "activate" in says and says["row"] >= self.rows
        self.refused_rows += outside
        if "activate" in says:
            twin.activate(says["bank"], says["row"])
        if says:
            assert bool(dut.refused.value) == outside and bool(dut.busy.value) == ("read" in says or "write" in says)
        return "read" in says or "write" in says

    def sample_response(self, dut):
        if self.byte is None:
            assert not dut.memory_response__valid.value, "an answer to nothing"
            return
        began, write, legal = self.byte
        due = self.cycle - began >= (1 if write else 2)
        assert bool(dut.memory_response__valid.value) == due, "the link was held up"
        if due:
            if not write:
                assert int(dut.memory_response__payload.value) in legal
            if dut.memory_response__ready.value:
                self.byte = None
                self.bytes += 1

    def sample_read(self):
        if not self.channels["r"].valid.value:
            assert not self.channels["r"].sample()
            return
        assert self.reads, "a beat of no burst"
        burst = self.reads[0]
        if self.first_offer is None:
            self.first_offer = (
                [self.could_be(burst[0] + lane, burst[2]) for lane in range(self.bus_bytes)]
                if (self.twin.response(burst[0]) == OKAY)
                else []
            )
        beat = self.channels["r"].sample()
        if beat is None:
            return
        assert beat["last"] == (burst[1] == 1) and beat["resp"] == self.twin.response(burst[0])
        self.refusals += beat["resp"] == DECERR
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
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            if self.engine:
                self.engine.advance()
            self.drive()

    async def finish(self, cycles=100_000):
        for _ in range(cycles):
            if self.idle:
                return
            await RisingEdge(self.dut.clk)
        raise AssertionError("something was never answered")


ALWAYS = dict.fromkeys(("ar", "r", "aw", "w", "b", "request", "response"), "always")


async def started(dut, paces=ALWAYS):
    """With random contents."""
    size, dram = bench.parameters()["size"], bench.parameters()["dram"]
    manager = Manager(dut, size, paces, 1, dram and DramConfig(**dram))
    await bench.start(dut)
    rng = random.Random(2)
    full = (1 << manager.bus_bytes) - 1
    for address in range(0, size, 16 * manager.bus_bytes):
        manager.queue_write(address, [(rng.getrandbits(8 * manager.bus_bytes), full) for _ in range(16)])
    await manager.finish()
    return manager


async def check_contents(manager):
    for address in range(0, len(manager.twin.data), 16 * manager.bus_bytes):
        manager.queue_read(address, 16)
    manager.past.clear()
    await manager.finish()


def random_burst(rng, manager, hot):
    """Mostly within the `hot` bytes at one place, sometimes at the end of the memory or beyond it; never across a page."""
    size, bus_bytes = len(manager.twin.data), manager.bus_bytes
    beats = rng.choice([1, 1, 2, 3, 4, rng.randint(1, 64)])
    start = rng.choice([0, 0, 0, 0, size - PAGE_BYTES, size, 1 << rng.randrange(14, 32), BEYOND])
    place = rng.choice([rng.randrange(hot), PAGE_BYTES - beats * bus_bytes, rng.randrange(PAGE_BYTES)])
    place = max(0, min(place, PAGE_BYTES - beats * bus_bytes)) // bus_bytes * bus_bytes
    return start + place, beats


def queue_bytes(rng, manager, count, hot=64):
    size = len(manager.twin.data)
    for _ in range(count):
        at = rng.choice([rng.randrange(hot), rng.randrange(size), size - 1])
        manager.queues["request"].append((at, rng.randrange(2), rng.randrange(256)))


def queue_anything(rng, manager, count, hot=64):
    for _ in range(count):
        manager.queue_read(*random_burst(rng, manager, hot))
        address, beats = random_burst(rng, manager, hot)
        full = (1 << manager.bus_bytes) - 1
        strobes = [rng.choice([full, rng.getrandbits(manager.bus_bytes), 0]) for _ in range(beats)]
        manager.queue_write(address, [(rng.getrandbits(8 * manager.bus_bytes), strobe) for strobe in strobes])
        queue_bytes(rng, manager, rng.randrange(12), hot)


async def take_turns(rng, manager, count):
    """The engine, and between its jobs bursts; the link all the time."""
    for _ in range(count):
        queue_anything(rng, manager, 2)
        while not manager.bus_idle:
            await RisingEdge(manager.dut.clk)
        manager.engine.begin(manager.rows)
        while not manager.engine.idle:
            queue_bytes(rng, manager, 1)
            await RisingEdge(manager.dut.clk)
    await manager.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_traffic(dut):
    manager = await started(dut)
    rng = random.Random(bench.parameters()["seed"])
    for turn in range(8):
        paces = {name: rng.choice(list(bench.PATTERNS)) for name in ALWAYS}
        manager.paces = {name: bench.PATTERNS[pace](f"{turn} {name}") for name, pace in paces.items()}
        queue_anything(rng, manager, 40)
        await manager.finish()
        if manager.engine:
            await take_turns(rng, manager, 10)
    assert manager.refusals > 50 and manager.bytes > 500
    if manager.engine:
        assert manager.columns > 500 and manager.held_up > 50
        assert manager.refused_rows > 10 or manager.engine.dram.rows < manager.rows
    manager.paces = {name: bench.always() for name in ALWAYS}
    await check_contents(manager)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_reset(dut):
    """Bursts are forgotten, contents stay."""
    manager = await started(dut)
    rng = random.Random(3)
    for _ in range(30):
        queue_anything(rng, manager, 4)
        if manager.engine and rng.random() < 0.5:
            while not manager.bus_idle:
                await RisingEdge(dut.clk)
            manager.engine.begin(manager.rows)
        for _ in range(rng.randrange(60)):
            await RisingEdge(dut.clk)
        manager.forget()
        manager.drive()
        await bench.reset(dut, 1)
    await manager.finish()
    await check_contents(manager)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_pace(dut):
    """A beat a cycle each way at once, from burst to burst too; every second cycle where bursts have one beat."""
    manager = await started(dut)
    for beats, cycles in ((2, 2), (7, 7), (64, 64), (1, 2)):
        began = manager.cycle
        for number in range(20):
            manager.queue_read(PAGE_BYTES * (number % 2), beats)
            manager.queue_write(PAGE_BYTES * (number % 2), [(number, 1)] * beats)
        await manager.finish()
        assert manager.cycle - began <= 20 * cycles + 8, f"{manager.cycle - began} cycles for 20 bursts of {beats}"


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_flags(dut):
    """Busy from when a burst is at work to its last beat; refused once a beat outside."""
    manager = await started(dut)
    size, refused, busy = bench.parameters()["size"], 0, 0
    manager.queue_read(size, 3)
    manager.queue_write(BEYOND, [(0, 1)] * 5)
    manager.queue_read(0, 4)
    for _ in range(30):
        await ReadOnly()
        refused += int(dut.refused.value)
        busy += int(dut.busy.value)
        await RisingEdge(dut.clk)
    assert manager.idle and refused in (5, 6, 7, 8) and busy >= 7
    assert not dut.busy.value


@pytest.mark.parametrize(
    ("bus_bytes", "dram"), [(8, None), (8, {"banks": 8, "rows": 32, "columns": 32}), (32, {"banks": 8, "rows": 32, "columns": 8})]
)
def test_block_memory(bus_bytes, dram):
    name, size = f"block_memory_{bus_bytes}" + "_banks" * bool(dram), 3 * PAGE_BYTES
    block = BlockMemory(bus_bytes, size, dram and DramConfig(**dram))
    bench.run(block, __file__, name, parameters={"size": size, "dram": dram, "seed": 1})


@pytest.mark.parametrize("size", [0, PAGE_BYTES + 8, (1 << 32) + PAGE_BYTES])
def test_size(size):
    with pytest.raises(ValueError, match="positive multiple of 4096"):
        BlockMemory(8, size)


def test_size_of_banks():
    with pytest.raises(ValueError, match="multiple of 8192, a row of all banks, not 12288"):
        BlockMemory(8, 3 * PAGE_BYTES, DramConfig())
    with pytest.raises(ValueError, match="a row must have 8 words or more, a beat's, not 4"):
        BlockMemory(32, PAGE_BYTES, DramConfig(columns=4))


@pytest.mark.parametrize("dram", [None, DramConfig()])
def test_block_rams_of_an_fpga(dram):
    """Yosys makes 256 KB of 128 block RAMs of 2 KB, and gates only of what is beside them."""
    cells = synthesized(BlockMemory(8, 1 << 18, dram))
    assert cells["DP16KD"] == 128 and cells["TRELLIS_FF"] < 300


def test_golden():
    twin = Golden(4, 16)
    twin.write(4, 0x44332211, 0b1010)
    twin.write(16, 0xFFFFFFFF, 0b1111)
    assert twin.data == bytes([0, 0, 0, 0, 0, 0x22, 0, 0x44]) + bytes(8)
    assert twin.read(4) == 0x44002200 and twin.read(16) == 0
    assert [twin.response(address) for address in (0, 12, 16, BEYOND)] == [OKAY, OKAY, DECERR, DECERR]


def test_golden_columns():
    """Whatever is written to columns lies where banks of DRAM have it."""
    config, rng = DramConfig(banks=8, rows=4, columns=8, rcd=2, rp=2, ras=2, wr=2), random.Random(4)
    twin, dram, now = Golden(8, 4 * config.words, config), Dram(config), 0
    twin.data[:] = rng.randbytes(4 * config.words)
    dram.load([twin.read(4 * number) & 0xFFFFFFFF for number in range(config.words)])
    for _ in range(100):
        bank, row, columns = rng.randrange(8), rng.randrange(4), rng.sample(range(8), 3)
        dram.command(now, 1, 0, bank, row)
        twin.activate(bank, row)
        for column in columns:
            word = rng.getrandbits(32)
            assert twin.read_column(bank, column) == dram.banks[bank].read(now + 2, column)
            dram.banks[bank].write(now + 3, column, word)
            twin.write_column(bank, column, word)
        dram.command(now + 8, 0, 1, bank, row)
        now += 10
    assert twin.data == dram.words().tobytes()
    twin.activate(3, 4)
    before = bytes(twin.data)
    twin.write_column(3, 0, 1)
    assert twin.data == before and twin.read_column(3, 0) == 0
