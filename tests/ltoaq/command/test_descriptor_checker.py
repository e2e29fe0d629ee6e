import random

import bench
import cocotb
import pytest
from cocotb.triggers import FallingEdge, RisingEdge, with_timeout
from cocotb.utils import get_sim_time
from nibblecore.hdl.config import PRESETS, TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.command import descriptor as layout
from nibblecore.hdl.ltoaq.command import job
from nibblecore.hdl.ltoaq.command.errors import ErrorCode as E
from nibblecore.sim.golden.ltoaq.command import descriptor_checker as golden
from structs import split

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, PRESETS["fpga_fused"])}
BASE, LAST = 0x1000, 0x0FFF_FFFF
PERIOD = 10  # ns


def legal(config, opcode, rng, *, raw_output=0, small=False):
    """Fields of a random legal descriptor in the window BASE..LAST, and with `small` sizes of a few tiles only."""
    edge = 3 * config.tile if small else 400
    f = {"opcode": opcode, "m": rng.randint(1, edge), "n": rng.randint(1, edge), "interrupt": rng.randrange(2)}
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
        f.update(raw_output=raw_output, a_transposed=rng.randrange(2), w_transposed=rng.randrange(2), k=rng.randint(1, edge))
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


def spoilt(config, rng):
    """(fields or bytes, code): one thing wrong with a legal descriptor, everything in the table of errors at least once."""
    for opcode, raw_output in kinds():

        def base(opcode=opcode, raw_output=raw_output):
            return legal(config, opcode, rng, raw_output=raw_output, small=True)

        f = base()
        for wrong in (0, 4, 255):
            yield {**f, "opcode": wrong}, E.BAD_OPCODE
        used = int.from_bytes(layout.pack(**f), "little")
        covered = sum(((1 << x.width) - 1) << 32 * x.word + x.low for x in layout.FIELDS)
        for bit in range(1024):
            if not covered >> bit & 1:
                yield (used | 1 << bit).to_bytes(128, "little"), E.RESERVED_BITS
        for field in layout.FIELDS:
            if field.name not in f and field.name != "raw_output":
                yield {**base(), field.name: 1 << rng.randrange(field.width)}, E.RESERVED_BITS
        for name in f:
            if name in ("m", "n", "k") or name.endswith("run_stride"):
                for wrong in (0, 65536, 1 << 31):
                    yield {**base(), name: wrong}, E.ZERO_SIZE
            if name.endswith(("header", "codes", "runs", "address", "pitch")):
                grain = 32 if name.endswith("header") else config.bus_bytes
                step = 1
                while step < grain:
                    f = base()
                    yield {**f, name: f[name] + step}, E.MISALIGNED
                    step *= 2
            if name.endswith("pitch"):
                f = base()
                short = -(-4 * f["n"] // config.bus_bytes) * config.bus_bytes - config.bus_bytes
                yield {**f, name: short}, E.MISALIGNED
            if name.endswith(("header", "codes", "runs", "address")):
                yield {**base(), name: BASE - 32}, E.OUT_OF_WINDOW
                yield {**base(), name: LAST + 1}, E.OUT_OF_WINDOW
                yield {**base(), name: 0xFFFF_FFE0}, E.OUT_OF_WINDOW
                f = base()
                size = golden.regions({**{x.name: 0 for x in layout.FIELDS}, **f}, config)[name].size
                grain = 32 if name.endswith("header") else config.bus_bytes
                fits = (LAST + 1 - size) // grain * grain
                yield {**f, name: fits}, E.NONE
                yield {**f, name: fits + grain}, E.OUT_OF_WINDOW
                yield {**f, name: BASE}, E.NONE
        for tensor in ("a", "w", "out"):
            if f"{tensor}_threshold" in f:
                yield {**base(), f"{tensor}_threshold": 0}, E.BAD_FORMAT
                for eight_bit in (0, 1):
                    for is_signed in (0, 1):
                        limit = 2 ** ((8 if eight_bit else 4) - is_signed) - 1
                        f = {**base(), f"{tensor}_signed": is_signed, f"{tensor}_threshold": min(255, limit + 1)}
                        widths = (
                            {"out_eight_bit": eight_bit}
                            if tensor == "out"
                            else {"a_eight_bit": eight_bit, "w_eight_bit": eight_bit}
                        )
                        if limit < 255 and (tensor == "out" or f["a_eight_bit"] == eight_bit):
                            yield {**f, **widths}, E.BAD_FORMAT
        if "alpha" in f:
            for name, wrong in (("alpha", 0), ("alpha", 1 << 31), ("multiplier", 0), ("shift", 40), ("shift", 63)):
                yield {**base(), name: wrong}, E.BAD_FORMAT
        if opcode == layout.Opcode.GEMM:
            f = base()
            yield {**f, "a_eight_bit": 1, "w_eight_bit": 0, "w_threshold": 1}, E.BAD_FORMAT
            for name in ("a_group", "w_group", "k_tiles"):
                yield {**base(), name: 0}, E.BAD_TILING
            f = base()
            yield {**f, "k_tiles": -(-f["k"] // config.tile) + 1, "a_group": 1, "w_group": 1}, E.BAD_TILING
            long = {**base(), "k": 3 * config.tile, "k_tiles": 2, "a_group": 1, "w_group": 1}
            yield long, E.NONE
            yield {**long, "a_group": 2}, E.BAD_TILING
            yield {**long, "w_group": 2}, E.BAD_TILING
            for t, banks in (("a", config.rows), ("w", config.output_cols)):
                f = {**base(), "k": 1, "k_tiles": 1, "a_group": 1, "w_group": 1}
                fits = config.bank_words // 2 // golden.panel_words(config, 1, f["a_eight_bit"], banks)
                if fits < 255:
                    yield {**f, f"{t}_group": fits}, E.NONE
                    yield {**f, f"{t}_group": fits + 1}, E.BAD_TILING
                yield {**f, "k": 60000, "k_tiles": -(-60000 // config.tile)}, E.BAD_TILING


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_every_error(dut):
    config, rng = await start(dut)
    seen = set()
    for case, expected in spoilt(config, rng):
        raw = case if isinstance(case, bytes) else layout.pack(**case)
        assert golden.check(raw, config, BASE, LAST) == expected, f"golden model: {case} should be {expected.name}"
        code, _ = await check(dut, raw)
        assert code == expected, f"{case}: {E(code).name} instead of {expected.name}"
        seen.add(expected)
    assert seen == set(E) - {E.MALFORMED_RUNS, E.RUN_OVERFLOW, E.BUS_READ, E.BUS_WRITE, E.QUEUE_OVERFLOW}


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
async def bench_tightest_window(dut):
    """The window may end in the middle of anything: to the byte, it holds all regions or it does not."""
    config, rng = await start(dut)
    for turn in range(80):
        opcode, raw_output = kinds()[turn % 4]
        raw = layout.pack(**legal(config, opcode, rng, raw_output=raw_output, small=True))
        touched = golden.regions(golden.fields(raw), config).values()
        base, last = min(region.base for region in touched), max(region.base + region.size for region in touched) - 1
        for window, expected in (((base, last), E.NONE), ((base + 1, last), E.OUT_OF_WINDOW), ((base, last - 1), E.OUT_OF_WINDOW)):
            assert golden.check(raw, config, *window) == expected
            assert (await check(dut, raw, *window))[0] == expected


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
    from nibblecore.hdl.ltoaq.command.descriptor_checker import DescriptorChecker

    bench.run(DescriptorChecker(config), __file__, "descriptor_checker", parameters={"config": config.name})


def test_golden_table_is_the_descriptors():
    """The golden model's own copy of the field table places every field where the driver packs it."""
    for field in layout.FIELDS:
        value = (1 << field.width) - 1
        assert golden.fields(layout.pack(**{field.name: value})) == {x.name: value * (x.name == field.name) for x in layout.FIELDS}
