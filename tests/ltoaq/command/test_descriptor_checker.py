import random

import bench
import cocotb
import pytest
from amaranth.hdl import Fragment
from cocotb.triggers import FallingEdge, RisingEdge, with_timeout
from cocotb.utils import get_sim_time
from nibblecore.hdl.config import PRESETS, TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.command import descriptor as layout
from nibblecore.hdl.ltoaq.command import job
from nibblecore.hdl.ltoaq.command.descriptor_checker import DescriptorChecker
from nibblecore.hdl.ltoaq.command.errors import ErrorCode as E
from nibblecore.sim.golden.ltoaq.command import descriptor_checker as golden
from structs import split

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, PRESETS["fpga_fused"])}
BASE, LAST = 0x1000, 0x0FFF_FFFF
PERIOD = 10  # ns


def legal(config, opcode, rng, *, raw_output=0, small=False, **sizes):
    """Fields of a random legal descriptor in the window BASE..LAST, and with `small` sizes of a few tiles only; m, n, k as given."""
    edge = 3 * config.tile if small else 400
    m, n, k = (sizes.get(name) or rng.randint(1, edge) for name in "mnk")
    f = {"opcode": opcode, "m": m, "n": n, "interrupt": rng.randrange(2)}
    gemm = opcode == layout.Opcode.GEMM

    def tensor(name, eight_bit):
        is_signed = rng.randrange(2)
        f.update(
            {
                f"{name}_eight_bit": eight_bit,
                f"{name}_signed": is_signed,
                f"{name}_k": rng.randrange(4),
                f"{name}_threshold": rng.randint(1, 2 ** ((8 if eight_bit else 4) - is_signed) - 1),
                f"{name}_header": 32 * rng.randint(0x1000, 0x2000),
            }
        )

    def storage(name):
        f.update(
            {
                f"{name}_codes": 32 * rng.randint(0x1000, 0x2000),
                f"{name}_runs": 32 * rng.randint(0x1000, 0x2000),
                f"{name}_run_stride": rng.randint(1, 60),
            }
        )

    def raw(name):
        pitch = -(-4 * f["n"] // config.bus_bytes) * config.bus_bytes
        f.update(
            {f"{name}_address": 32 * rng.randint(0x1000, 0x2000), f"{name}_pitch": pitch + config.bus_bytes * rng.randrange(4)}
        )

    if gemm:
        f.update(raw_output=raw_output, a_transposed=rng.randrange(2), w_transposed=rng.randrange(2), k=k)
        eight_bit = rng.randrange(2)
        for name in "aw":
            tensor(name, eight_bit)
            storage(name)
        tiles = -(-f["k"] // config.tile)
        half = config.bank_words // 2
        a_words, w_words = (golden.panel_words(config, 1, eight_bit, banks) for banks in (config.rows, config.output_cols))
        k_tiles = min(tiles, half // max(a_words, w_words))
        k_tiles = k_tiles if rng.random() < 0.6 else rng.randint(1, k_tiles)
        whole = k_tiles == tiles
        f.update(
            k_tiles=k_tiles,
            a_group=min(255, rng.randint(1, half // (a_words * k_tiles))) if whole else 1,
            w_group=min(255, half // (w_words * k_tiles)) if whole else 1,
        )
    if not raw_output:
        tensor("out", rng.randrange(2))
        f.update(
            alpha=rng.choice([1, 2**31 - 1, rng.randint(1, 2**31 - 1)]),
            multiplier=rng.randint(1, 255),
            shift=rng.randint(0, 39),
            relu=rng.randrange(2),
        )
        if opcode != layout.Opcode.THRESHOLD_GRAD:
            storage("out")
    if not gemm or raw_output:
        raw("raw0")
    if opcode == layout.Opcode.THRESHOLD_GRAD:
        raw("raw1")
    return f


def kinds():
    return [(layout.Opcode.GEMM, 0), (layout.Opcode.GEMM, 1), (layout.Opcode.QUANTIZE, 0), (layout.Opcode.THRESHOLD_GRAD, 0)]


async def check(dut, raw, base=BASE, last=LAST):
    """Error code of a descriptor, and the cycles from start to done."""
    dut.descriptor.value = int.from_bytes(raw, "little")
    dut.window_base.value, dut.window_last.value, dut.start.value = base, last, 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
    started = get_sim_time("ns")
    await with_timeout(RisingEdge(dut.done), 1000, "ns")
    code = int(dut.code.value)
    await FallingEdge(dut.done)
    return code, round(get_sim_time("ns") - started) // PERIOD


async def start(dut):
    dut.start.value = 0
    dut.descriptor.value = 0
    await bench.start(dut)
    return CONFIGS[bench.parameters()["config"]], random.Random(random.getrandbits(32))


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_legal_descriptors_and_their_jobs(dut):
    config, rng = await start(dut)
    shapes = {
        "gemm": job.GemmJob,
        "a": job.OperandJob,
        "w": job.OperandJob,
        "target": job.OutputJob,
        "raw0": job.RawJob,
        "raw1": job.RawJob,
        "shape": job.MatrixShape,
    }
    for turn in range(400):
        opcode, raw_output = kinds()[turn % 4]
        f = legal(config, opcode, rng, raw_output=raw_output)
        raw = layout.pack(**f)
        assert golden.check(raw, config, BASE, LAST) == 0
        code, latency = await check(dut, raw)
        assert code == 0, f"{f}: {E(code).name}"
        assert latency == 20
        for unit, expected in golden.jobs(golden.fields(raw), config).items():
            seen = split(shapes[unit], int(getattr(dut, unit).value))
            assert {name: seen[name] for name in expected} == expected, f"{unit} of {f}"
        if not raw_output:
            assert int(dut.q_max.value) == golden.clip(golden.fields(raw), config)


def commands_at_the_limit(config, kind, name, rng):
    """Pairs (commands on the two sides of a condition's limit): one that may run, one that the condition refuses; with their windows."""
    opcode, raw_output = kind
    window = BASE, LAST
    field, _, why = name.partition(" ")

    def base(**sizes):
        return legal(config, opcode, rng, raw_output=raw_output, small=True, **sizes)

    def pair(f, changes, within=(window, window)):
        return (layout.pack(**f), within[0]), (layout.pack(**f | changes), within[1])

    def whole_k(tiles=1):
        """All of K in one part, one panel of each operand at a time."""
        return base(k=tiles * config.tile) | {"k_tiles": tiles, "a_group": 1, "w_group": 1}

    def formats(f):
        """The command with every width and sign of the field's tensor, and the largest threshold of each."""
        for eight_bit, is_signed in ((0, 0), (0, 1), (1, 0), (1, 1)):
            tensor = field.split("_")[0]
            widths = {"out_eight_bit": eight_bit} if tensor == "out" else {"a_eight_bit": eight_bit, "w_eight_bit": eight_bit}
            others = dict.fromkeys(("a_threshold", "w_threshold", "a_group", "w_group"), 1) if tensor != "out" else {}
            highest = 2 ** ((8 if eight_bit else 4) - is_signed) - 1
            yield f | widths | others | {f"{tensor}_signed": is_signed, field: highest}

    if name == "opcode":
        for unknown in set(range(256)) - set(layout.Opcode):
            yield (layout.pack(**base()), window), (layout.pack(opcode=unknown, m=1, n=1), window)
    elif name == "reserved":
        covered = sum(((1 << x.width) - 1) << 32 * x.word + x.low for x in layout.FIELDS)
        raw = layout.pack(**base())
        for bit in range(1024):
            if not covered >> bit & 1:
                yield (raw, window), ((int.from_bytes(raw, "little") | 1 << bit).to_bytes(128, "little"), window)
    elif why == "unused":
        (width,) = (x.width for x in layout.FIELDS if x.name == field)
        yield from (pair(base(), {field: 1 << bit}) for bit in range(width))
    elif name in ("m zero", "n zero", "k zero"):
        yield pair(base(**{field: 1}), {field: 0})
    elif name in ("m wide", "n wide", "k wide"):
        narrow = {"m": 1, "n": 1, "k": 1, field: 65535}
        f = base(**narrow)
        if "k" in f:
            f |= {"k_tiles": 1, "a_group": 1, "w_group": 1}
        yield from (pair(f, {field: 1 << bit}) for bit in range(16, 32))
    elif field.endswith("run_stride"):
        f = base(m=1, n=1, k=1)
        if why == "zero":
            yield pair(f | {field: 1}, {field: 0})
        else:
            yield from (pair(f | {field: 65535}, {field: 1 << bit}) for bit in range(16, 32))
    elif why == "askew":
        grain = 32 if field.endswith("header") else config.bus_bytes
        for bit in range((grain - 1).bit_length()):
            f = base()
            yield pair(f, {field: f[field] + (1 << bit)})
    elif why == "short":
        words = config.bus_bytes // 4
        for n in (1, words, words + 1, 2 * words, 65535 - words, 65535):
            line = -(-n // words) * config.bus_bytes
            yield pair(base(m=1, n=n) | {field: line}, {field: line - config.bus_bytes})
    elif why in ("below", "beyond"):
        grain = 32 if field.endswith("header") else config.bus_bytes
        for _ in range(4):
            low, high = base() | {field: 0x8000}, base() | {field: 0x0800_0000}
            if why == "below":
                yield pair(low, {}, ((0x8000, LAST), (0x8001, LAST)))
                yield pair(low, {field: 0x8000 - grain}, ((0x8000, LAST), (0x8000, LAST)))
                continue
            size = golden.regions(golden.fields(layout.pack(**high)), config)[field].size
            end = 0x0800_0000 + size
            yield pair(high, {}, ((BASE, end - 1), (BASE, end - 2)))
            yield pair(high, {field: 0x0800_0000 + grain}, ((BASE, end - 1), (BASE, end - 1)))
            all_memory = BASE, 0xFFFF_FFFF
            if size > grain:
                yield pair(high | {field: 2**32 - size}, {field: 2**32 - size + grain}, (all_memory, all_memory))
    elif field.endswith("threshold"):
        for f in formats(base(k=1)):
            if why == "zero":
                yield pair(f | {field: 1}, {field: 0})
            elif f[field] < 255:
                yield pair(f, {field: f[field] + 1})
    elif name == "widths differ":
        for wide in "aw":
            f = base(k=1) | {"a_group": 1, "w_group": 1, "a_threshold": 1, "w_threshold": 1, "a_eight_bit": 0, "w_eight_bit": 0}
            yield pair(f, {f"{wide}_eight_bit": 1})
    elif field in ("alpha", "multiplier", "shift"):
        fits, *wrong = {
            "alpha zero": (1, 0),
            "alpha high": (2**31 - 1, 2**31),
            "multiplier zero": (1, 0),
            "shift high": (39, 40, 63),
        }[name]
        yield from (pair(base() | {field: fits}, {field: refused}) for refused in wrong)
    elif field == "k_tiles":
        for tiles in (1, 2):
            yield pair(whole_k(tiles), {"k_tiles": 0 if why == "zero" else tiles + 1})
    elif why == "zero":
        yield pair(whole_k(), {field: 0})
    elif why == "of a part":
        yield pair(whole_k(3) | {"k_tiles": 2}, {field: 2})
    elif why == "high":
        banks = config.rows if field == "a_group" else config.output_cols
        for tiles, eight_bit in ((1, 0), (1, 1), (2, 0), (3, 1)):
            f = whole_k(tiles) | {"a_eight_bit": eight_bit, "w_eight_bit": eight_bit, "a_threshold": 1, "w_threshold": 1}
            fits = config.bank_words // 2 // golden.panel_words(config, tiles, bool(eight_bit), banks)
            if fits < 255:
                yield pair(f | {field: fits}, {field: fits + 1})


NEVER_ALONE = {"k zero"}
"""No k_tiles goes with it: what is refused as ZERO_SIZE would be BAD_TILING without it."""


@cocotb.test(timeout_time=40, timeout_unit="ms")
async def bench_every_condition(dut):
    """At its limit a command may run; one beyond, the condition alone refuses it, so that the answer is the condition's."""
    config, rng = await start(dut)
    alone = {}
    for kind in kinds():
        of_kind = golden.conditions(layout.pack(**legal(config, kind[0], rng, raw_output=kind[1])), config, BASE, LAST)
        for name, (code, _) in of_kind.items():
            alone[kind, name] = 0
            for (fits, window), (refused, narrow) in commands_at_the_limit(config, kind, name, rng):
                assert golden.check(fits, config, *window) == E.NONE, f"{kind}, {name}: {golden.fields(fits)} should be in order"
                assert (await check(dut, fits, *window))[0] == E.NONE, f"{kind}, {name}: {golden.fields(fits)}"
                found = golden.conditions(refused, config, *narrow)
                violated = {other for other, (_, met) in found.items() if not met}
                assert {other for other in violated if found[other][0] == golden.check(refused, config, *narrow)} == {name}
                assert (await check(dut, refused, *narrow))[0] == code, f"{kind}, {name}: {golden.fields(refused)}"
                alone[kind, name] += violated == {name} or name in NEVER_ALONE
    idle = [where for where, count in alone.items() if not count]
    assert not idle, f"refused no command by themselves: {idle}"


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_lowest_of_several_errors(dut):
    config, rng = await start(dut)
    seen = dict.fromkeys(range(8), 0)
    cases = [(opcode, raw_output) for _ in range(400) for opcode, raw_output in kinds()]
    for opcode, raw_output in cases:
        f = legal(config, opcode, rng, raw_output=raw_output, small=True)
        for _ in range(rng.randrange(4)):
            field = rng.choice([field for field in layout.FIELDS if field.name != "opcode"])
            f[field.name] = rng.choice([0, 1, (1 << field.width) - 1, rng.getrandbits(field.width), f.get(field.name, 0) ^ 1])
            if rng.random() < 0.05:
                f["opcode"] = rng.getrandbits(8)
        raw = layout.pack(**f)
        base, last = rng.choice([(BASE, LAST), (BASE, LAST), (0, 0xFFFF_FFFF), (LAST, BASE), (0x2_8000, 0x3_FFFF)])
        expected = golden.check(raw, config, base, last)
        code, _ = await check(dut, raw, base, last)
        assert code == expected, f"{f}, window {base:#x}..{last:#x}: {code} instead of {expected}"
        seen[expected] += 1
    assert all(seen.values()), seen


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_largest_sizes(dut):
    """No product of the regions' arithmetic wraps: every size and stride at its limit still is out of the window."""
    config, rng = await start(dut)
    for opcode, raw_output in kinds():
        f = legal(config, opcode, rng, raw_output=raw_output)
        f.update(m=65535, n=65535)
        for name in f:
            if name.endswith("run_stride"):
                f[name] = 65535
            if name.endswith("pitch"):
                f[name] = 0xFFFF_FFE0
        if "k" in f:
            f.update(k=65535, k_tiles=1, a_group=1, w_group=1)
        raw = layout.pack(**f)
        assert golden.check(raw, config, 0, 0xFFFF_FFFF) == E.OUT_OF_WINDOW
        assert (await check(dut, raw, 0, 0xFFFF_FFFF))[0] == E.OUT_OF_WINDOW
        tiles = -(-65535 // config.tile)
        assert split(job.MatrixShape, int(dut.shape.value)) == {"m": 65535, "n": 65535, "m_tiles": tiles, "n_tiles": tiles}
        # One region at a time: the others small.
        for spoil in [name for name in f if name.endswith(("run_stride", "pitch"))]:
            g = legal(config, opcode, rng, raw_output=raw_output, small=True)
            g.update({spoil: f[spoil], "m": 65535, "n": 65535 if spoil.startswith("w") else g["n"]})
            for pitch in ("raw0_pitch", "raw1_pitch"):
                if pitch in g and pitch != spoil:
                    g[pitch] = max(g[pitch], 65536 * 4)
            raw = layout.pack(**g)
            assert (await check(dut, raw, 0, 0xFFFF_FFFF))[0] == golden.check(raw, config, 0, 0xFFFF_FFFF)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config, rng = await start(dut)
    for cycles in (1, 5, 13, 17, 19):
        bad = legal(config, layout.Opcode.GEMM, rng)
        bad.update(a_codes=0, w_header=0, a_group=0)
        dut.descriptor.value = int.from_bytes(layout.pack(**bad), "little")
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        await bench.reset(dut)
        code, latency = await check(dut, layout.pack(**legal(config, layout.Opcode.QUANTIZE, rng)))
        assert (code, latency) == (0, 20)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_checker(config):
    bench.run(DescriptorChecker(config), __file__, "descriptor_checker", parameters={"config": config.name})


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_conditions_are_the_checkers(config):
    """The hardware and the golden model name the same conditions, with the same codes; the bench goes through the latter's."""
    checker = DescriptorChecker(config)
    Fragment.get(checker, None)
    named: dict[str, int] = {}
    for opcode, raw_output in kinds():
        raw = layout.pack(**legal(config, opcode, random.Random(1), raw_output=raw_output))
        named |= {name: code for name, (code, _) in golden.conditions(raw, config, BASE, LAST).items()}
    assert checker.conditions == named


def test_golden_table_is_the_descriptors():
    """The golden model's own copy of the field table places every field where the driver packs it."""
    for field in layout.FIELDS:
        value = (1 << field.width) - 1
        assert golden.fields(layout.pack(**{field.name: value})) == {x.name: value * (x.name == field.name) for x in layout.FIELDS}
