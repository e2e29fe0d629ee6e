"""The controller between models of its DMAs and units: every cycle equals the twin's, and what users are told is stated here once more.

The twin says what each output is in each cycle. The tests of coincidences state the outcome again, without it: they sweep an event over every
cycle of a command and know what must come of it from the cycles in which a run without the event failed or ended.
"""

import random
from collections import Counter, deque
from dataclasses import dataclass

import bench
import cocotb
import pytest
from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import FallingEdge, RisingEdge
from nibblecore.hdl.config import TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.command import descriptor as layout
from nibblecore.hdl.ltoaq.command.controller import Controller
from nibblecore.hdl.ltoaq.command.errors import ErrorCode as E
from nibblecore.hdl.ltoaq.command.job import TensorSummary
from nibblecore.sim.golden.ltoaq.command import controller as golden
from structs import join

CONFIGS = {
    config.name: config for config in (TINY, LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256))
}
SETTLE = 5
HERE, THERE, HEADERS = 0x1000, 0x2000, {"a": 0x3000, "w": 0x3020}
KINDS = ("product", "raw product", "quantize", "gradient")

CONTROLS = ("push", "clear_error", "clear_counters", "soft_reset")
FLAGS = ("idle", "malformed", "run_overflow", "read_error", "read_idle", "write_error", "write_idle")
SHOWN = (
    ("busy", 1),
    ("queue_full", 1),
    ("queue_level", 8),
    ("done_count", 32),
    ("abandoned_count", 32),
    ("error_code", 8),
    ("error_sequence", 16),
    ("failed", 1),
    ("command_done", 1),
    ("owns_bus", 1),
    ("clear_bus", 1),
    ("abandon", 1),
    ("unit_reset", 1),
    ("start", 1),
)


class Bundled(wiring.Component):
    """The controller with its small ports in two words, which the simulator reads and writes at once."""

    def __init__(self, config):
        self.config = config
        bus = config.bus_bits
        super().__init__(
            {
                "drive": In(len(CONTROLS) + len(FLAGS) + 32 + 64 + 1 + 1 + bus + 2),
                "summary": In(TensorSummary),
                "show": Out(sum(width for _, width in SHOWN) + 2 * (1 + 48) + 1 + 1 + bus + config.bus_bytes),
                "descriptor": Out(1024),
                "run_beats": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.controller = c = Controller(self.config, SETTLE)
        ports = [getattr(c, name) for name in (*CONTROLS, *FLAGS, "address", "window_base", "window_last")]
        ports += [c.read_command.ready, c.read_data.valid, c.read_data.payload, c.write_command.ready, c.write_data.ready]
        m.d.comb += [Cat(*ports).eq(self.drive), c.summary.eq(self.summary)]
        shown = [getattr(c, name) for name, _ in SHOWN]
        for command in (c.read_command, c.write_command):
            shown += [command.valid, command.payload.address, command.payload.beats]
        shown += [c.read_data.ready, c.write_data.valid, c.write_data.payload.data, c.write_data.payload.strobe]
        m.d.comb += [
            self.show.eq(Cat(*shown)),
            self.descriptor.eq(c.descriptor),
            self.run_beats.eq(Cat(c.a.run_beats, c.w.run_beats)),
        ]
        return m


@dataclass
class Plan:
    """How memory and units behave while commands run. Beats and cycles count from 0; those of units from the cycle after ``start``."""

    latency: int = 3
    wait: float = 0.0  # share of cycles in which nothing moves on a stream
    bad_read: int | None = None  # the beat that is refused, of all that are read
    bad_header: bool = False  # the write of the result's header is refused
    work: tuple[int, ...] = (6,)  # cycles of work, of rest, of work, …
    units: tuple[tuple[int, str], ...] = ()  # (cycle, what the units or their transfers meet)
    drain: int = 4  # cycles that the units' transfers take to end once given up


class World:
    """One controller out of reset with its DMAs, memory and units, and the twin beside it."""

    def __init__(self, dut, config, plan, memory, seed=0):
        self.dut, self.config, self.plan, self.memory = dut, config, plan, memory
        self.twin = golden.Controller(config, SETTLE)
        self.rng = random.Random(seed)
        self.now = 0
        self.window = (0, 0xFFFF_FFFF)
        self.beats: deque[tuple[int, int, bool]] = deque()  # (cycle of arrival, word, refused)
        self.beats_read = self.owed = 0
        self.answer = None
        self.errors = {"read": False, "write": False}
        self.started = None
        self.sticky = dict.fromkeys(("malformed", "run_overflow"), False)
        self.busy_until = {"read": 0, "write": 0}
        self.written = []
        self.reads = []
        self.events = []  # (cycle, name)
        self.new_summary()

    def new_summary(self):
        self.summary = {name: self.rng.getrandbits(width) for name, width in SUMMARY.items()}
        self.summary["overflow"] = 1
        self.dut.summary.value = join(TensorSummary, self.summary)

    def moves(self):
        return self.plan.wait == 0 or self.rng.random() >= self.plan.wait

    def at_work(self):
        if self.started is None:
            return False
        cycle = self.now - self.started - 1
        for turn, length in enumerate(self.plan.work):
            if cycle < length:
                return turn % 2 == 0
            cycle -= length
        return False

    async def cycle(self, push=None, **controls):
        plan, now = self.plan, self.now
        for cycle, what in plan.units:
            if self.started is not None and now == self.started + 1 + cycle:
                if what in self.sticky:
                    self.sticky[what] = True
                else:
                    self.errors[what.split("_")[0]] = True
        for arrival, _, refused in self.beats:
            self.errors["read"] |= refused and arrival <= now
        if self.answer == now:
            self.answer, self.errors["write"] = None, self.errors["write"] or plan.bad_header
        ripe = bool(self.beats) and self.beats[0][0] <= now and self.moves()
        i = golden.Inputs(
            address=push,
            **controls,
            window=self.window,
            idle=not self.at_work(),
            **self.sticky,
            summary=self.summary,
            takes_read=self.moves(),
            beat=self.beats[0][1] if ripe else None,
            takes_write=self.moves(),
            takes_beat=self.moves(),
            read_error=self.errors["read"],
            read_idle=not self.beats and self.busy_until["read"] <= now,
            write_error=self.errors["write"],
            write_idle=not self.owed and self.answer is None and self.busy_until["write"] <= now,
        )
        await self.compare(i)
        self.now += 1
        return i

    async def compare(self, i):
        bus = self.config.bus_bits
        bits = [i.address is not None, i.clear_error, i.clear_counters, i.soft_reset, *(getattr(i, name) for name in FLAGS)]
        word = sum(bit << place for place, bit in enumerate(bits))
        place = len(bits)
        for value, width in (
            (i.address or 0, 32),
            (self.window[0], 32),
            (self.window[1], 32),
            (i.takes_read, 1),
            (i.beat is not None, 1),
            (i.beat or 0, bus),
            (i.takes_write, 1),
            (i.takes_beat, 1),
        ):
            word |= int(value) << place
            place += width
        self.dut.drive.value = word
        drives = self.twin.drives
        o = self.twin.step(i)
        await FallingEdge(self.dut.clk)
        shown, got, place = int(self.dut.show.value), {}, 0
        for name, width in (
            *SHOWN,
            ("read", 1),
            ("read_address", 32),
            ("read_beats", 16),
            ("write", 1),
            ("write_address", 32),
            ("write_beats", 16),
            ("reads", 1),
            ("writes", 1),
            ("data", bus),
            ("strobe", self.config.bus_bytes),
        ):
            got[name] = shown >> place & (1 << width) - 1
            place += width
        expected = {
            "busy": o.busy,
            "queue_full": o.queue_level == self.config.queue_depth,
            "queue_level": o.queue_level,
            "done_count": o.done,
            "abandoned_count": o.abandoned,
            "error_code": o.code,
            "error_sequence": o.sequence,
            "failed": o.failed,
            "command_done": o.command_done,
            "owns_bus": drives.owns_bus,
            "clear_bus": drives.clear_bus,
            "abandon": drives.abandon,
            "unit_reset": drives.unit_reset,
            "start": drives.start,
            "read": drives.read_command is not None,
            "write": drives.write_command is not None,
            "reads": drives.reads,
            "writes": drives.write_beat is not None,
        }
        if drives.read_command:
            expected["read_address"], expected["read_beats"] = drives.read_command
        if drives.write_command:
            expected["write_address"], expected["write_beats"] = drives.write_command
        if drives.write_beat is not None:
            expected.update(data=drives.write_beat, strobe=(1 << self.config.bus_bytes) - 1)
        wrong = {name: (got[name], int(value)) for name, value in expected.items() if got[name] != value}
        assert not wrong, f"cycle {self.now}, {i}: (got, expected) {wrong}"
        if drives.start:
            # They hold until the command ends; the units take them with `start`.
            assert int(self.dut.descriptor.value) == int.from_bytes(self.twin.descriptor, "little")
            if self.twin.descriptor[0] == layout.Opcode.GEMM:
                assert int(self.dut.run_beats.value) == self.twin.run_beats[0] | self.twin.run_beats[1] << 16
        for name in ("failed", "command_done", "start", "unit_reset", "clear_bus", "write"):
            if got[name]:
                self.events.append((self.now, name))
        self.shown = got
        self.respond(i, got)
        await RisingEdge(self.dut.clk)

    def respond(self, i, got):
        """What the DMAs, the memory and the units make of the cycle."""
        now, plan, bus = self.now, self.plan, self.config.bus_bytes
        if got["clear_bus"]:
            self.errors = {"read": False, "write": False}
        if got["unit_reset"]:
            self.started = None
            self.sticky = dict.fromkeys(self.sticky, False)
        if got["start"]:
            self.started = now
        if got["abandon"]:
            while self.beats and self.beats[0][0] <= now:
                self.beats.popleft()
            if self.owed:
                self.owed, self.answer = 0, now + plan.latency
            if self.started is not None and not any(self.busy_until.values()):
                self.busy_until = {"read": now + plan.drain, "write": now + 2 * plan.drain}
        if not got["abandon"]:
            self.busy_until = {"read": 0, "write": 0}
        if got["reads"] and i.beat is not None:
            self.beats.popleft()
        if got["read"] and i.takes_read:
            self.reads.append((got["read_address"], got["read_beats"]))
            last = self.beats[-1][0] if self.beats else now
            for n in range(got["read_beats"]):
                address = got["read_address"] + n * bus
                word = int.from_bytes(self.memory.get(address // bus * bus, bytes(bus)), "little")
                self.beats.append((max(now + plan.latency, last) + n, word, self.beats_read == plan.bad_read))
                self.beats_read += 1
        if got["writes"] and i.takes_beat:
            self.written.append(got["data"])
            self.owed -= 1
            if not self.owed:
                self.answer = now + plan.latency
        if got["write"] and i.takes_write:
            self.owed = got["write_beats"]

    async def until_idle(self, limit=4000):
        for _ in range(limit):
            await self.cycle()
            if not self.shown["busy"]:
                await self.cycle()
                return
        raise AssertionError(f"busy for {limit} cycles")

    def cycles_of(self, name):
        return [cycle for cycle, event in self.events if event == name]

    @property
    def ends(self):
        return self.shown["done_count"], self.shown["abandoned_count"]

    @property
    def error(self):
        return E(self.shown["error_code"]), self.shown["error_sequence"]


SUMMARY = {"run_beats": 16, "x_max": 32, "outliers": 32, "saturations": 32, "gradient": 64, "overflow": 1}


def legal(config, kind, **changes):
    """The fields of a small command of this kind."""
    opcodes = {"quantize": layout.Opcode.QUANTIZE, "gradient": layout.Opcode.THRESHOLD_GRAD}
    f: dict[str, int] = {"opcode": opcodes.get(kind, layout.Opcode.GEMM), "m": 3, "n": 5, "interrupt": 1}
    raw = kind == "raw product"
    if "product" in kind:
        f.update(k=4, k_tiles=1, a_group=1, w_group=1, raw_output=raw, a_transposed=1)
        for name in "aw":
            f.update({f"{name}_threshold": 7, f"{name}_header": HEADERS[name], f"{name}_codes": 0x4000, f"{name}_runs": 0x5000})
            f[f"{name}_run_stride"] = 3 if name == "a" else 4
    if not raw:
        f.update(out_threshold=7, out_header=0x6000, alpha=100, multiplier=3, shift=2)
        if kind != "gradient":
            f.update(out_codes=0x7000, out_runs=0x8000, out_run_stride=9)
    if kind in ("raw product", "quantize", "gradient"):
        f.update(raw0_address=0x9000, raw0_pitch=32)
    if kind == "gradient":
        f.update(raw1_address=0xA000, raw1_pitch=32)
    return {**f, **changes}


def memory_of(config, fields, run_beats=(2, 4)):
    """Memory with one descriptor at HERE and at THERE, and the operands' headers."""
    bus = config.bus_bytes
    memory = {}
    raw = layout.pack(**fields)
    headers = [(HEADERS[name], beats.to_bytes(4, "little") + b"\xff" * 28) for name, beats in zip("aw", run_beats, strict=True)]
    for base, content in ((HERE, raw), (THERE, raw), *headers):
        for at in range(0, len(content), bus):
            memory[base + at] = content[at : at + bus]
    return memory


def total_reads(config, fields):
    return 128 // config.bus_bytes + 2 * (fields["opcode"] == layout.Opcode.GEMM)


async def world(dut, config, plan, fields, *, run_beats=(2, 4), seed=0):
    """A controller out of reset in front of a memory that holds the command."""
    dut.drive.value = 0
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    return World(dut, config, plan, memory_of(config, fields, run_beats), seed)


async def run(dut, config, plan, fields, at=(), *, address=HERE, run_beats=(2, 4), seed=0):
    """Push the command in cycle 0, do what `at` says ({cycle: arguments of `World.cycle`}), run to the end."""
    w = await world(dut, config, plan, fields, run_beats=run_beats, seed=seed)
    at = dict(at)
    at[0] = {"push": address, **at.get(0, {})}
    for cycle in range(max(at) + 1):
        await w.cycle(**at.get(cycle, {}))
    await w.until_idle()
    return w


async def start(dut):
    dut.drive.value, dut.summary.value = 0, 0
    await bench.start(dut)
    return CONFIGS[bench.parameters()["config"]]


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_commands_of_every_kind(dut):
    """What is read and written, when the units start, and how long it takes, as the contract says."""
    config = await start(dut)
    for kind in KINDS:
        for latency in (2, 7):
            fields = legal(config, kind)
            w = await run(dut, config, Plan(latency=latency), fields)
            product, beats, header = "product" in kind, 128 // config.bus_bytes, 32 // config.bus_bytes
            assert w.reads == [(HERE, beats), *((HEADERS[name], 1) for name in "aw" if product)]
            (started,) = w.cycles_of("start")
            assert started == (27 + 2 * latency if product else 25 + latency) + beats
            writes = kind != "raw product"
            (done,) = w.cycles_of("command_done")
            # Six cycles of work come after `start`; in its turn `write_idle` follows the last beat by the latency.
            assert done + 1 == started + 1 + 6 + SETTLE + 2 + (1 + header + latency - 1 if writes else 0)
            expected = [0] * 8
            if kind == "gradient":
                expected[4:6] = w.summary["gradient"] % 2**32, w.summary["gradient"] >> 32
            else:
                expected[:4] = (w.summary[name] for name in ("run_beats", "x_max", "outliers", "saturations"))
                expected[6] = w.summary["overflow"]
            content = b"".join(word.to_bytes(4, "little") for word in expected)
            assert b"".join(word.to_bytes(config.bus_bytes, "little") for word in w.written) == content * writes
            assert w.ends == (1, 0) and w.error == (E.NONE, 0)
            quiet = await run(dut, config, Plan(latency=latency), {**fields, "interrupt": 0})
            assert quiet.ends == (1, 0) and not quiet.cycles_of("command_done")


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_units_that_pause(dut):
    """Rests shorter than `settle_cycles` do not end a command."""
    config = await start(dut)
    for rest in range(1, SETTLE + 2):
        w = await run(dut, config, Plan(work=(3, rest, 4)), legal(config, "quantize"))
        (started,) = w.cycles_of("start")
        worked = 3 if rest >= SETTLE else 3 + rest + 4
        assert w.cycles_of("write")[0] == started + 1 + worked + SETTLE
    # Nor does a rest at the beginning, after a command that was abandoned while it settled.
    for settled in range(1, SETTLE):
        w = await run(dut, config, Plan(work=(3,), units=((3 + settled, "malformed"),)), legal(config, "quantize"))
        w.plan = Plan(work=(0, SETTLE - 1, 4))
        await w.cycle(push=HERE)
        await w.until_idle()
        assert w.cycles_of("write")[0] == w.cycles_of("start")[1] + 1 + SETTLE - 1 + 4 + SETTLE and w.ends == (1, 1)


def refused(config):
    """(descriptor's address, fields, run beats, code): all that is found before the units start."""
    good = legal(config, "product")
    yield HERE + 1, good, (2, 4), E.MISALIGNED
    yield HERE + 16, good, (2, 4), E.MISALIGNED
    for change, code in (
        ({"opcode": 9}, E.BAD_OPCODE),
        ({"raw0_pitch": 8}, E.RESERVED_BITS),
        ({"m": 0}, E.ZERO_SIZE),
        ({"a_codes": 0x4001}, E.MISALIGNED),
        ({"a_threshold": 0}, E.BAD_FORMAT),
        ({"a_group": 0}, E.BAD_TILING),
        ({"m": 0, "a_threshold": 0}, E.ZERO_SIZE),
    ):
        yield HERE, {**good, **change}, (2, 4), code
    # The headers say 3 and 4 beats at most, as the strides do.
    for wrong in ((0, 4), (4, 4), (2, 0), (2, 5), (2, 1 << 31), (0, 0)):
        yield HERE, good, wrong, E.MALFORMED_RUNS
    most = config.max_run_beats
    yield HERE, {**good, "a_run_stride": 60000, "w_run_stride": 60000}, (most, most), E.NONE
    yield HERE, {**good, "a_run_stride": 60000, "w_run_stride": 60000}, (most + 1, most), E.MALFORMED_RUNS
    yield HERE, {**good, "a_run_stride": 60000, "w_run_stride": 60000}, (most, most + 1), E.MALFORMED_RUNS


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_every_error_before_the_units_start(dut):
    config = await start(dut)
    for address, fields, run_beats, code in refused(config):
        w = await run(dut, config, Plan(), fields, address=address, run_beats=run_beats)
        assert w.error == (code, 0), f"{address:#x} {fields} {run_beats}: {w.error}"
        assert w.ends == ((0, 1) if code else (1, 0))
        if code:
            assert not w.cycles_of("start") and not w.cycles_of("write") and not w.cycles_of("command_done")
            assert len(w.cycles_of("failed")) == 1
    for window, code in (
        ((HERE, 0xFFFF), E.NONE),
        ((HERE + 1, 0xFFFF), E.OUT_OF_WINDOW),
        ((0, HERE + 126), E.OUT_OF_WINDOW),
        ((0, 0x8FFF), E.OUT_OF_WINDOW),
    ):
        w = await world(dut, config, Plan(), legal(config, "quantize"))
        w.window = window
        await w.cycle(push=HERE)
        await w.until_idle()
        assert w.error == (code, 0)
        # What the first bytes of the window refuse is never read.
        assert bool(w.reads) == (window[0] <= HERE and window[1] >= HERE + 127)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_a_bus_error_on_each_beat(dut):
    config = await start(dut)
    for kind in KINDS:
        fields = legal(config, kind)
        for beat in range(total_reads(config, fields)):
            for wait in (0.0, 0.4):
                w = await run(dut, config, Plan(bad_read=beat, wait=wait), fields, seed=beat)
                assert w.error == (E.BUS_READ, 0) and w.ends == (0, 1), f"{kind}, beat {beat}: {w.error}"
                assert not w.cycles_of("start") and not w.written and not w.cycles_of("command_done")
        w = await run(dut, config, Plan(bad_header=True), fields)
        assert w.error == ((E.NONE if kind == "raw product" else E.BUS_WRITE), 0)
        assert w.ends == ((1, 0) if kind == "raw product" else (0, 1))


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_every_error_of_the_units(dut):
    """In every cycle of their work and after it; the later cycles of a result without a header are those of a write's answer."""
    config = await start(dut)
    order = ("read_error", "write_error", "malformed", "run_overflow")
    codes = dict(zip(order, (E.BUS_READ, E.BUS_WRITE, E.MALFORMED_RUNS, E.RUN_OVERFLOW), strict=True))
    fields = legal(config, "quantize")
    pairs = 0
    for first, code in codes.items():
        for cycle in range(6 + SETTLE):
            w = await run(dut, config, Plan(units=((cycle, first),)), fields)
            assert w.error == (code, 0) and w.ends == (0, 1), f"{first} in cycle {cycle}: {w.error}"
            assert w.cycles_of("failed") == [w.cycles_of("start")[0] + 1 + cycle] and not w.written
            assert len(w.cycles_of("unit_reset")) == 2, "what is left of an abandoned command is cleared"
        for second in order[order.index(first) + 1 :]:
            for one, other, expected in ((3, 3, first), (2, 3, first), (3, 2, second)):
                w = await run(dut, config, Plan(units=((one, first), (other, second))), fields)
                assert w.error == (codes[expected], 0), f"{first} in cycle {one}, {second} in {other}: {w.error}"
                pairs += 1
    assert pairs == 18
    # The answer to a write of the units may be an error after the last of them is idle.
    for kind in ("raw product", "quantize"):
        w = await run(dut, config, Plan(units=((6 + SETTLE, "write_error"),)), legal(config, kind))
        assert w.error == (E.BUS_WRITE, 0) and w.ends == (0, 1)


def failing(config):
    """(name, arguments of `run`) of commands that end in each way, of every kind of end."""
    yield "done", {"plan": Plan(), "fields": legal(config, "quantize")}
    yield "done without a header", {"plan": Plan(), "fields": legal(config, "raw product")}
    yield "refused address", {"plan": Plan(), "fields": legal(config, "quantize"), "address": HERE + 4}
    yield "refused by the check", {"plan": Plan(), "fields": legal(config, "quantize", m=0)}
    yield "refused header", {"plan": Plan(), "fields": legal(config, "product"), "run_beats": (2, 9)}
    yield "refused beat", {"plan": Plan(bad_read=2), "fields": legal(config, "quantize")}
    yield "malformed", {"plan": Plan(units=((4, "malformed"),)), "fields": legal(config, "quantize")}
    yield "refused write", {"plan": Plan(bad_header=True), "fields": legal(config, "gradient")}


class Known:
    """A run without any event beside it: the cycles in which it started, failed and ended."""

    def __init__(self, w):
        self.error, self.ends = w.error, w.ends
        self.failed = (w.cycles_of("failed") or [None])[0]
        self.started = (w.cycles_of("start") or [None])[0]
        self.done = (w.cycles_of("command_done") or [None])[0]
        # IDLE is back the cycle after the last of the command.
        self.last = min(cycle for cycle in w.cycles_of("clear_bus") if cycle > 1) - 1


@cocotb.test(timeout_time=60, timeout_unit="ms")
async def bench_a_soft_reset_in_every_cycle(dut):
    """An error before it stays, one in its cycle or after it is none, and what it meets has never been done."""
    config = await start(dut)
    met: Counter[str] = Counter()
    for name, case in failing(config):
        known = Known(await run(dut, config, **case))
        for cycle in range(known.last + 2):
            w = await run(dut, config, **case, at={cycle: {"soft_reset": True}})
            running = cycle <= known.last
            failed = known.failed is not None and known.failed < cycle
            where = f"{name}, cycle {cycle}"
            assert w.ends == ((0, 1) if running else known.ends), where
            assert w.error == ((known.error[0], 0) if failed else (E.NONE, 0)), where
            assert bool(w.cycles_of("command_done")) == (not running and known.done is not None), where
            assert len(w.cycles_of("failed")) == failed, where
            assert w.shown["queue_level"] == 0 and not w.shown["busy"], where
            if cycle <= 1:
                assert not w.reads, where
            met["push"] += cycle == 0
            met["failure"] += cycle == known.failed
            met["start"] += cycle == known.started
            met["end"] += cycle == known.last
            if cycle % 3:
                continue
            # The next command finds nothing of it.
            w.plan, w.beats_read = Plan(), 0
            w.memory.update(memory_of(config, legal(config, "quantize")))
            await w.cycle(push=THERE)
            await w.until_idle()
            assert w.ends == tuple(a + b for a, b in zip(((0, 1) if running else known.ends), (1, 0), strict=True)), where
            assert w.cycles_of("command_done")[-1] > known.started if known.started else True
    assert met == {"push": 8, "failure": 6, "start": 4, "end": 8}, met


@cocotb.test(timeout_time=60, timeout_unit="ms")
async def bench_clears_in_every_cycle(dut):
    """Of the error and of the counters, behind a command that has failed: an error in the cycle is kept, an end in it is not counted."""
    config = await start(dut)
    met: Counter[str] = Counter()
    for name, case in failing(config):
        code = Known(await run(dut, config, **case)).error[0]
        pushes = {0: {"push": HERE + 4}, 1: {"push": case.get("address", HERE)}}
        known = await run(dut, config, **case, at=pushes)
        failures = known.cycles_of("failed")
        idle = set(known.cycles_of("clear_bus"))
        ends = [cycle for cycle in range(2, known.now - 1) if cycle not in idle and cycle + 1 in idle]
        assert len(ends) == 2 and len(failures) == 1 + bool(code)
        for cycle in range(ends[1] + 2):
            clears = {cycle: {**pushes.get(cycle, {}), "clear_error": True, "clear_counters": True}}
            w = await run(dut, config, **case, at={**pushes, **clears})
            if cycle <= failures[0]:
                expected = E.MISALIGNED, 0
            elif code and cycle <= failures[1]:
                expected = code, int(cycle < ends[0] or cycle == failures[1])
            else:
                expected = E.NONE, 0
            assert w.error == expected, f"{name}, cycle {cycle}"
            well, badly = not code and cycle < ends[1], bool(code) and cycle < ends[1]
            assert w.ends == (well, badly + (cycle < ends[0])), f"{name}, cycle {cycle}"
            assert w.cycles_of("failed") == failures
            met["failure behind an error"] += cycle in failures[1:]
            met["end"] += cycle in ends
    assert met == {"failure behind an error": 6, "end": 16}, met


@cocotb.test(timeout_time=60, timeout_unit="ms")
async def bench_a_full_queue_beside_a_failure(dut):
    """The push that finds no room comes in every cycle of a failing command, whose number it does not take."""
    config = await start(dut)
    depth = config.queue_depth
    met: Counter[str] = Counter()
    for name, case in failing(config):
        if name not in ("refused by the check", "malformed", "refused beat", "done"):
            continue
        fill = {cycle: {"push": HERE} for cycle in range(depth + 1)}
        known = Known(await run(dut, config, **case, at={0: {}}))
        for cycle in range(depth + 1, known.last + 1):
            w = await world(dut, config, case["plan"], case["fields"])
            for now in range(cycle):
                await w.cycle(**fill.get(now, {}))
            await w.cycle(push=HERE)
            first = known.failed is not None and known.failed <= cycle
            assert [now for now in w.cycles_of("failed") if now == cycle] == [cycle], "each error raises the interrupt"
            await w.cycle()
            assert w.error == ((known.error[0], 0) if first else (E.QUEUE_OVERFLOW, depth + 1)), f"{name}, cycle {cycle}"
            met["failure"] += known.failed == cycle
            met["after it"] += known.failed is not None and known.failed < cycle
            if cycle % 7 == 0:
                await w.until_idle()
                assert sum(w.ends) == depth + 1, "the dropped push does not count"
                met["whole"] += 1
    assert met["failure"] == 3 and met["after it"] >= 10 and met["whole"] > 10, met


@cocotb.test(timeout_time=60, timeout_unit="ms")
async def bench_a_push_in_the_cycle_of_a_soft_reset(dut):
    """With any number in the queue: what is pushed with the reset goes with it, what is pushed after it runs."""
    config = await start(dut)
    depth = config.queue_depth
    met: Counter[str] = Counter()
    fields = legal(config, "quantize")
    for queued in range(depth + 2):
        for pushes in (True, False):
            for cycle in range(depth + 3, 45, 4):
                at = {now: {"push": HERE} for now in range(queued)}
                w = await world(dut, config, Plan(), fields)
                for now in range(cycle):
                    await w.cycle(**at.get(now, {}))
                full = w.shown["queue_full"]
                await w.cycle(push=HERE if pushes else None, soft_reset=True)
                await w.cycle(push=THERE)
                assert not w.shown["queue_level"]
                await w.until_idle()
                accepted = queued + (pushes and not full)
                assert w.ends == (1, accepted), f"{queued} queued, cycle {cycle}: {w.ends}"
                assert w.reads[-1][0] == THERE and len(w.cycles_of("command_done")) == 1
                assert w.error == ((E.QUEUE_OVERFLOW, depth + 1) if pushes and full else (E.NONE, 0))
                met["full"] += bool(pushes and full)
                met["room"] += bool(pushes and not full)
    assert met["full"] >= 10 and met["room"] >= 50, met


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_numbers_of_commands(dut):
    """ERROR.sequence is the number of pushes that were taken before, whatever became of them; the first error stays."""
    config = await start(dut)
    good, bad = legal(config, "quantize"), legal(config, "quantize", m=0)
    w = await world(dut, config, Plan(), good)
    for address, content in ((HERE, good), (THERE, bad)):
        raw = layout.pack(**content)
        w.memory.update({address + at: raw[at : at + config.bus_bytes] for at in range(0, 128, config.bus_bytes)})
    # Two are done, two are dropped by a soft reset (one of them running), one is refused, one more is done.
    for _ in range(2):
        await w.cycle(push=HERE)
    await w.until_idle()
    for _ in range(2):
        await w.cycle(push=HERE)
    for _ in range(20):
        await w.cycle()
    await w.cycle(soft_reset=True)
    for address in (THERE, HERE, THERE):
        await w.cycle(push=address)
    await w.until_idle()
    assert w.ends == (3, 4) and w.error == (E.ZERO_SIZE, 4)
    assert len(w.cycles_of("failed")) == 2, "the second error raises the interrupt, too"
    await w.cycle(clear_error=True)
    await w.cycle(push=THERE)
    await w.until_idle()
    assert w.error == (E.ZERO_SIZE, 7)
    await w.cycle(clear_counters=True, clear_error=True)
    await w.cycle(push=THERE)
    await w.until_idle()
    assert w.error == (E.ZERO_SIZE, 0) and w.ends == (0, 1)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_a_window_that_changes(dut):
    """In every cycle of a command: it keeps the window it was taken with, and the next one does not."""
    config = await start(dut)
    last = Known(await run(dut, config, Plan(), legal(config, "quantize"))).last
    taken = 1
    for cycle in range(last):
        w = await world(dut, config, Plan(), legal(config, "quantize"))
        for now in range(last + 1):
            if now == cycle:
                w.window = (0, HERE + 126 + cycle % 2)  # without the descriptor, or without what it names
            await w.cycle(push=HERE if now < 2 else None)
        await w.until_idle()
        assert w.ends == ((0, 2) if cycle <= taken else (1, 1)), f"cycle {cycle}"
        assert w.error == (E.OUT_OF_WINDOW, 0 if cycle <= taken else 1)


@cocotb.test(timeout_time=60, timeout_unit="ms")
async def bench_anything_at_any_time(dut):
    config = await start(dut)
    rng = random.Random(random.getrandbits(32))
    ends: Counter[str] = Counter()
    for turn in range(60):
        fields = legal(config, rng.choice(KINDS))
        if rng.random() < 0.2:
            fields["m"] = 0
        w = await world(dut, config, Plan(wait=rng.choice([0.0, 0.5])), fields, seed=turn)
        accepted = 0
        for _ in range(250):
            if rng.random() < 0.02:
                w.plan = Plan(
                    latency=rng.randint(1, 9),
                    wait=rng.choice([0.0, 0.2, 0.6]),
                    bad_read=rng.choice([None, None, w.beats_read + rng.randrange(20)]),
                    bad_header=rng.random() < 0.2,
                    work=tuple(rng.randint(1, 8) for _ in range(rng.randint(1, 4))),
                    units=tuple(
                        (rng.randrange(20), rng.choice(["malformed", "run_overflow", "read_error", "write_error"]))
                        for _ in range(rng.choice([0, 0, 1, 2]))
                    ),
                    drain=rng.randint(0, 9),
                )
            push = rng.choice([HERE, THERE, HERE + 4]) if rng.random() < 0.06 else None
            i = await w.cycle(push, soft_reset=rng.random() < 0.01, clear_error=rng.random() < 0.02)
            accepted += push is not None and not w.shown["queue_full"]
            assert i is not None
        await w.until_idle()
        assert sum(w.ends) == accepted
        ends.update(done=w.ends[0], abandoned=w.ends[1])
    assert ends["done"] > 40 and ends["abandoned"] > 40, ends


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config = await start(dut)
    for cycles in range(1, 70, 6):
        w = await world(dut, config, Plan(), legal(config, "product"))
        for now in range(cycles):
            await w.cycle(push=HERE if now < 3 else None)
        w = await run(dut, config, Plan(), legal(config, "product"))
        assert w.ends == (1, 0) and w.error == (E.NONE, 0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_controller(config):
    bench.run(Bundled(config), __file__, "controller", parameters={"config": config.name})


def test_a_pipeline_of_no_cycles_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Controller(TINY, 0)
