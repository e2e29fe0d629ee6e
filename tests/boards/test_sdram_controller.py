"""Words in a modelled chip, which fails on a command out of its time, against the golden twin."""

import random
from collections import deque
from dataclasses import asdict, replace

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.boards.chips import SDRAM_32M, SdramTiming
from nibblecore.hdl.boards.sdram_controller import Command, SdramController
from nibblecore.sim.golden.boards.sdram_controller import SdramController as Golden
from nibblecore.sim.perf.sdram_chip import BrokenRule, Sdram

CHIP = SDRAM_32M
TIMINGS = {mhz: replace(CHIP.timing(1_000_000 * mhz), power_up=40) for mhz in (25, 133)}
PAGE = 1 << CHIP.column_bits
ROW = PAGE * CHIP.banks
PINS = ("command", "bank", "address", "mask", "data_out", "drive")


class Wires:
    """The chip at the pins, others that watch, and requests from a queue; every answer is compared, to the cycle."""

    def __init__(self, dut, timing, watchers=()):
        self.pins = [getattr(dut, f"pins__{name}") for name in PINS]
        self.dut, self.chip, self.watchers = dut, Sdram(CHIP, timing), list(watchers)
        self.broken = {}  # of the watchers, by number: what they said
        self.twin = Golden()
        self.queue: deque[tuple[int, ...]] = deque()
        self.due: deque[tuple[int, tuple[int, int]]] = deque()  # (cycle, tag and word)
        self.pace, self.offered = bench.always(), False
        self.latency, self.cycle, self.read = timing.cas + 2, 0, 0
        for name in ("request__valid", "request__payload", "rst"):
            getattr(dut, name).value = 0
        cocotb.start_soon(self.run())

    @property
    def idle(self):
        return not self.queue and not self.due

    def ask(self, address, write=0, word=0, strobe=3, tag=0):
        self.queue.append((address, write, word, strobe, tag))

    def drive(self):
        self.offered = bool(self.queue) and (self.offered or next(self.pace))
        self.dut.request__valid.value = int(self.offered)
        if self.offered:
            bits, payload = 0, 0
            for value, width in zip(self.queue[0], (CHIP.address_bits, 1, 16, 2, 1), strict=True):
                payload, bits = payload | value << bits, bits + width
            self.dut.request__payload.value = payload

    def sample(self):
        dut, reset = self.dut, bool(self.dut.rst.value)
        if self.due and self.due[0][0] == self.cycle:
            _, expected = self.due.popleft()
            assert dut.found.value and (int(dut.tag.value), int(dut.word.value)) == expected, f"cycle {self.cycle}"
            self.read += 1
        else:
            assert not dut.found.value, "a word that nobody asked for"
        if self.offered and dut.request__ready.value:
            answer = self.twin.request(*self.queue.popleft())
            self.offered = False
            if answer:
                self.due.append((self.cycle + self.latency, answer))
        if reset:
            self.due.clear()
        said = [int(pin.value) for pin in self.pins]
        for number, watcher in enumerate(self.watchers):
            if number not in self.broken:
                try:
                    watcher.edge(*said)
                except BrokenRule as error:
                    self.broken[number] = str(error)
        return self.chip.edge(*said)

    async def run(self):
        while True:
            await ReadOnly()
            word = self.sample()
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            self.dut.pins__data_in.value = word
            self.drive()

    async def finish(self, cycles=100_000):
        for _ in range(cycles):
            if self.idle:
                return
            await RisingEdge(self.dut.clk)
        raise AssertionError("a request was never answered")


def timing():
    return SdramTiming(**bench.parameters()["timing"])


def places(rng, count):
    """Addresses in a few rows of all banks, the first and the last columns, and the last row of all."""
    rows = [0, 1, 2, (1 << CHIP.row_bits) - 1]
    columns = [0, 1, 2, 3, PAGE - 1]
    return [
        (rng.choice(rows) * CHIP.banks + rng.randrange(CHIP.banks)) * PAGE + rng.choice([*columns, rng.randrange(PAGE)])
        for _ in range(count)
    ]


def ask_anything(rng, wires, count):
    """In runs: of a row, of the same word, of any."""
    known = places(rng, 40)
    while count > 0:
        run, write = rng.choice([1, 1, 2, 5, 40]), rng.randrange(2)
        first, kind = rng.choice(known), rng.randrange(3)
        for number in range(run):
            at = {0: first - first % PAGE + (first + number) % PAGE, 1: first, 2: rng.choice(known)}[kind]
            if rng.random() < 0.2:
                write ^= 1
            wires.ask(at, write, rng.getrandbits(16), rng.choice([3, 3, 0, 1, 2]), rng.randrange(2))
        count -= run


def fill(wires):
    """Something in every place that is asked for: what was never written is unknown."""
    for row in (0, 1, 2, (1 << CHIP.row_bits) - 1):
        for column in range(ROW):
            at = row * ROW + column
            wires.chip.words[at] = wires.twin.words[at] = (at + 7919 * column) & 0xFFFF


async def traffic(wires):
    rng = random.Random(bench.parameters()["seed"])
    for pace in ("always", "random", "bursts", "rare"):
        wires.pace = bench.PATTERNS[pace](f"{pace} requests")
        ask_anything(rng, wires, 60 if pace == "rare" else 700)
        await wires.finish()
    wires.pace = bench.always()
    assert wires.read > 1000


async def resets(wires):
    """Of any length: words that were asked for are forgotten, the chip is refreshed and keeps what it has."""
    rng = random.Random(3)
    for _ in range(30):
        ask_anything(rng, wires, 60)
        for _ in range(rng.randrange(80)):
            await RisingEdge(wires.dut.clk)
        wires.queue.clear()
        wires.offered = False
        wires.drive()
        await bench.reset(wires.dut, rng.choice([1, 2, 3, 500]))
    await wires.finish()
    for at in places(rng, 500):
        wires.ask(at)
    await wires.finish()


async def bandwidth(wires):
    """Words one after the other, from row to row and through refreshes."""
    for write in (0, 1):
        for count in range(8 * PAGE):
            wires.ask(count % (3 * ROW), write, count & 0xFFFF)
        while len(wires.queue) == 8 * PAGE:
            await RisingEdge(wires.dut.clk)
        began = wires.cycle
        await wires.finish()
        share = 8 * PAGE / (wires.cycle - began)
        wires.dut._log.info(f"{share:.1%} of the cycles {'write' if write else 'read'} a word")
        assert share >= 0.95


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_words(dut):
    """All in one, for power comes once. Watchers that are stricter by a cycle see every time used to the full: the rules can be broken."""
    timing = SdramTiming(**bench.parameters()["timing"])
    stricter = {
        **{name: getattr(timing, name) + 1 for name in ("power_up", "rcd", "rp", "ras", "wr", "rfc", "mrd")},
        "rc": max(timing.rc, timing.ras + timing.rp) + 1,
        "rrd": timing.rc + 1,
        "refi": timing.refi - timing.longest,
        "cas": 5 - timing.cas,
    }
    wires = Wires(dut, timing, [Sdram(CHIP, timing, more={name: cycles}) for name, cycles in stricter.items()])
    fill(wires)
    await bench.start(dut)
    await traffic(wires)
    await resets(wires)
    await bandwidth(wires)
    for number, name in enumerate(stricter):
        rule = {"cas": "mode"}.get(name, name)
        assert wires.broken.get(number, "").startswith(f"{rule}: broken"), f"{name}: {wires.broken.get(number)}"
    assert all(wires.chip.counts[command.name] for command in Command) and wires.chip.counts["MODE"] == 1


@pytest.mark.parametrize("mhz", TIMINGS)
def test_sdram_controller(mhz):
    block = SdramController(CHIP, TIMINGS[mhz])
    bench.run(block, __file__, f"sdram_controller_{mhz}", parameters={"timing": asdict(TIMINGS[mhz]), "seed": 1})


RULES = SdramTiming(cas=2, rcd=3, rp=3, ras=6, rc=10, rrd=4, wr=5, rfc=8, mrd=2, refi=200, power_up=10)
ALL = {"address": 1 << 10}
BEGIN = [(10, "PRECHARGE", ALL), (13, "REFRESH", {}), (21, "REFRESH", {}), (29, "MODE", {"address": 2 << 4})]
OPEN = [*BEGIN, (40, "ACTIVATE", {"address": 5})]
WRITTEN = {"drive": 1, "data": 1}

EARLY = {
    "power_up": ([], (9, "PRECHARGE", ALL)),
    "mrd": (BEGIN, (30, "ACTIVATE", {})),
    "rcd": (OPEN, (42, "READ", {})),
    "ras": (OPEN, (45, "PRECHARGE", {})),
    "rp": ([*OPEN, (50, "PRECHARGE", {})], (52, "ACTIVATE", {})),
    "rc": ([*OPEN, (46, "PRECHARGE", {})], (49, "ACTIVATE", {})),
    "rrd": (OPEN, (43, "ACTIVATE", {"bank": 1})),
    "wr": ([*OPEN, (50, "WRITE", WRITTEN)], (54, "PRECHARGE", {})),
    "rfc": ([*BEGIN, (40, "REFRESH", {})], (47, "ACTIVATE", {})),
    "two drive": ([*OPEN, (50, "READ", {})], (52, "WRITE", WRITTEN)),
}
"""What the last command breaks, and does not a cycle later."""

WRONG = {
    "refi": ([*OPEN, (50, "PRECHARGE", {})], (222, "NOP", {})),
    "row open": (OPEN, (50, "READ", {"bank": 1})),
    "row closed before another is opened": (OPEN, (60, "ACTIVATE", {"address": 6})),
    "rows closed before a refresh": (OPEN, (60, "REFRESH", {})),
    "rows closed before the mode is set": (OPEN, (60, "MODE", {"address": 2 << 4})),
    "rows closed when power came": ([], (10, "REFRESH", {})),
    "refreshes when power came": (BEGIN[:2], (29, "MODE", {"address": 2 << 4})),
    "mode": (BEGIN[:3], (29, "MODE", {"address": 3 << 4})),
    "mode set before rows are opened": (BEGIN[:3], (40, "ACTIVATE", {})),
    "masked at first": (BEGIN[:3], (22, "NOP", {"mask": 0})),
    "column": (OPEN, (50, "READ", ALL)),
    "driven": (OPEN, (50, "WRITE", {})),
    "read masked": (OPEN, (50, "READ", {"mask": 2})),
}


def tell(commands):
    """A chip what is said in some cycles, up to the last; returns it, and what is read after that cycle."""
    chip, said, word = Sdram(CHIP, RULES), {at: (name, more) for at, name, more in commands}, 0
    ready = min((at for at, name, _ in commands if name == "MODE"), default=max(said))
    for at in range(max(said) + 1):
        name, more = said.get(at, ("NOP", {}))
        says = {"bank": 0, "address": 0, "mask": 3 if at <= ready else 0, "data": 0, "drive": 0} | more
        word = chip.edge(Command[name].value, **says)
    return chip, word


@pytest.mark.parametrize("rule", [*EARLY, *WRONG])
def test_chip_fails_where_a_rule_is_broken(rule):
    before, (at, name, more) = (EARLY | WRONG)[rule]
    with pytest.raises(BrokenRule, match=f"^{rule}: broken in cycle {at}$"):
        tell([*before, (at, name, more)])
    if rule in EARLY:
        tell([*before, (at + 1, name, more)])


def test_chip_keeps_what_is_written():
    chip, word = tell(
        [
            *OPEN,
            (45, "WRITE", WRITTEN | {"data": 0x1234}),
            (46, "WRITE", WRITTEN | {"data": 0x5678, "mask": 1}),
            (47, "READ", {}),
            (49, "NOP", {}),
        ]
    )
    assert word == 0x5634 and chip.words == {5 << 11: 0x5634} and chip.counts["NOP"] == 42


def test_golden():
    twin = Golden()
    assert twin.request(7, 1, 0x1234, 3, 0) is None and twin.request(7, 1, 0x5678, 2, 0) is None
    assert twin.request(7, 0, 0, 0, 1) == (1, 0x5634) and twin.request(8, 0, 0, 0, 0) == (0, 0)


def test_times_of_a_chip():
    assert CHIP.bytes == 1 << 25
    assert asdict(CHIP.timing(133_000_000)) == {
        "cas": 3, "rcd": 3, "rp": 3, "ras": 6, "rc": 9, "rrd": 2, "wr": 2, "rfc": 9, "mrd": 2, "refi": 1038, "power_up": 26600,
    }  # fmt: skip
    with pytest.raises(ValueError, match="refi at least"):
        CHIP.timing(1_000_000)
    with pytest.raises(ValueError, match="rcd must be a cycle or more, not 0"):
        replace(RULES, rcd=0)
    with pytest.raises(ValueError, match="cas must be 2 or 3, not 4"):
        replace(RULES, cas=4)
    with pytest.raises(ValueError, match="a chip has 2 or 4 banks"):
        replace(CHIP, column_bits=11)
