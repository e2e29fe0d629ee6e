import random
from collections import Counter
from fractions import Fraction
from math import floor

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.quantize.squ import Squ
from nibblecore.sim.golden.cambriconq.quantize.squ import Candidate, SquParameters, quantize_block

FLAGS = ("nan_seen", "infinity_seen", "overlong_block", "settings_illegal", "exponent_clamped")
NAN, INFINITY, ZERO, SIGN = 0x7FC00000, 0x7F800000, 0, 1 << 31
QMAX = {bits: 2 ** (bits - 1) - 1 for bits in (4, 8, 12, 16)}


def patterns(values):
    return [int(p) for p in np.asarray(values, np.float32).view(np.uint32)]


def scaled(rng, count, exponent, spread):
    """Normal and subnormal numbers whose biased exponents lie up to `spread` below `exponent`."""
    return [
        rng.getrandbits(1) << 31 | min(max(exponent - rng.randint(0, spread), 0), 254) << 23 | rng.getrandbits(23)
        for _ in range(count)
    ]


def ties(rng, count, bits):
    """Θ is Qmax steps; the others lie on ties, beside them, on and beside Qmax ± half a step."""
    field = rng.randint(1 + 24, 250)
    step = Fraction(2) ** (field - 127 - (bits - 2))
    values = [QMAX[bits] * step]
    for _ in range(count - 1):
        n = rng.choice((0, 1, QMAX[bits] - 1, rng.randint(0, QMAX[bits] - 1)))
        tie = float((n + Fraction(1, 2)) * step)
        tie = float(np.nextafter(np.float32(tie), np.float32(rng.choice((0.0, tie, 3.4e38)))))
        values.append(rng.choice((-1, 1)) * tie)
    return patterns([float(v) for v in values])


def corner_blocks(rng, count):
    """Named blocks of `count` values."""
    field = rng.randint(1, 254)
    equal = rng.getrandbits(1) << 31 | field << 23 | rng.getrandbits(23)
    yield "zeros", [rng.choice((ZERO, SIGN)) for _ in range(count)]
    yield "all equal", [equal] * count
    yield "all equal but for the sign", [equal ^ rng.choice((0, SIGN)) for _ in range(count)]
    yield "powers of two", [rng.getrandbits(1) << 31 | rng.randint(max(field - 20, 0), field) << 23 for _ in range(count)]
    yield "one huge value", [0x7F7FFFFF, *scaled(rng, count - 1, 100, 40)]
    yield "the largest and the smallest", [rng.choice((0x7F7FFFFF, 0xFF7FFFFF, 1, SIGN | 1)) for _ in range(count)]
    yield "subnormal", [rng.getrandbits(1) << 31 | rng.getrandbits(rng.randint(0, 23)) for _ in range(count)]
    yield "round the smallest normal", scaled(rng, count, 2, 3)
    # θ on and beside Qmax · 2^e, where e steps up.
    for bits in QMAX:
        theta = rng.randint(30, 250) << 23 | (2 ** (bits - 2) - 1) << (25 - bits)
        theta += rng.choice((-1, 0, 1))
        yield f"θ round Qmax of {bits} bits", [theta, *scaled(rng, count - 1, (theta >> 23) - 1, 12)]
        yield f"ties of {bits} bits", ties(rng, count, bits)
    # Where e reaches −128, for every width.
    low = [rng.randint(0, 20) << 23 | rng.getrandbits(23) for _ in range(count)]
    yield "where the exponent ends", low
    special = (NAN, NAN | SIGN, 0x7F800001, 0xFFFFFFFF, INFINITY, INFINITY | SIGN)
    yield "NaN and infinity among numbers", [rng.choice((*special, *scaled(rng, 6, field, 10))) for _ in range(count)]
    yield "only NaN and infinity", [rng.choice(special) for _ in range(count)]
    yield "only NaN", [NAN] * count
    yield "only bits", [rng.getrandbits(32) for _ in range(count)]


def round_the_window(rng, count, exponent):
    """Numbers about the largest that 16 bits hold under an exponent that is given: there the window of what is looked at ends."""
    top = exponent + 14 + 127
    fields = [min(top + distance, 254) for distance in range(-2, 4)]
    return [rng.getrandbits(1) << 31 | fields[i % len(fields)] << 23 | rng.getrandbits(23) for i in range(count)]


def random_block(rng, count):
    kind = rng.randrange(4)
    if kind == 0:
        return patterns([rng.gauss(0, 1) * 2.0 ** rng.randint(-30, 30) for _ in range(count)])
    if kind == 1:
        return scaled(rng, count, rng.randint(0, 254), rng.choice((1, 4, 30)))
    if kind == 2:
        # A long tail, for which candidates that clip can win.
        return patterns([rng.gauss(0, 1) * (1 if rng.random() < 0.97 else 2 ** rng.randint(2, 8)) for _ in range(count)])
    return rng.choice([block for _, block in corner_blocks(rng, count)])


def random_parameters(rng, *, illegal=False):
    def candidate():
        bits = rng.choice((4, 8, 12, 16))
        clip = rng.choice((None, None, 0, rng.randint(0, QMAX[bits]), *([rng.randint(0, 32767)] if illegal else [])))
        return Candidate(bits=bits, offset=rng.choice((0, 0, rng.randint(-2, 1), rng.randint(-8, 7))), clip=clip)

    return SquParameters(
        candidates=tuple(candidate() for _ in range(rng.randint(1, 4))),
        metric=rng.randrange(4 if illegal else 3),
        exponent=rng.choice((None, None, None, rng.randint(-128, 127))),
    )


def settings_word(p):
    word = 0
    for i, c in enumerate(p.candidates):
        clip = QMAX[c.bits] if c.clip is None else c.clip
        word |= (c.bits // 4 - 1 | (c.offset & 15) << 2 | clip << 6) << 21 * i
    return word | (len(p.candidates) - 1) << 84 | p.metric << 86 | (p.exponent is not None) << 88 | ((p.exponent or 0) & 255) << 89


def idle(dut):
    dut.settings.value = 0
    dut.i__valid.value = dut.i__payload.value = dut.o__ready.value = dut.clear.value = 0


def beats_of(block, lanes):
    """Beats of a block, filled up with zeros."""
    padded = [*block, *[ZERO] * (-len(block) % lanes)]
    return [bench.pack(padded[i : i + lanes], 32) for i in range(0, len(padded), lanes)]


async def feed(dut, work, pattern, rng, *, marked=True):
    """Sends blocks with their settings; settings mean nothing but in the cycle in which a block's last beat is taken."""
    lanes = bench.parameters()["lanes"]
    for block, parameters in work:
        beats = beats_of(block, lanes)
        for i, beat in enumerate(beats):
            last = i == len(beats) - 1
            while not next(pattern):
                dut.i__valid.value, dut.settings.value = 0, rng.getrandbits(97)
                await RisingEdge(dut.clk)
            dut.i__valid.value, dut.i__payload.value = 1, beat | (last and marked) << 32 * lanes
            dut.settings.value = settings_word(parameters) if last else rng.getrandbits(97)
            while True:
                await ReadOnly()
                taken = int(dut.i__ready.value)
                await RisingEdge(dut.clk)
                if taken:
                    break
    dut.i__valid.value = 0


async def run_blocks(dut, work, in_pattern, out_pattern, rng):
    """Sends blocks, checks every beat that comes out."""
    lanes = bench.parameters()["lanes"]
    count = sum(-(-len(block) // lanes) for block, _ in work)
    cocotb.start_soon(feed(dut, work, in_pattern, rng))
    check_beats(work, await bench.receive(dut, "o", count, out_pattern))


def check_beats(work, received):
    lanes = bench.parameters()["lanes"]
    received = list(received)
    for number, (block, parameters) in enumerate(work):
        golden = quantize_block(block, parameters)
        tag = golden.e & 255 | (golden.bits // 4 - 1) << 8
        beats = -(-len(block) // lanes)
        expected = [*golden.q.tolist(), *[0] * (beats * lanes - len(block))]
        for beat in range(beats):
            word = received.pop(0)
            what = f"block {number} of {len(block)} under {parameters}, beat {beat}"
            assert word >> 16 * lanes & 0x3FF == tag, f"{what}: tag {word >> 16 * lanes & 0x3FF:#x}, not {tag:#x}"
            q = bench.unpack(word, 16, lanes, signed=True)
            assert q == expected[beat * lanes : (beat + 1) * lanes], f"{what}: {q}"
            assert word >> 16 * lanes + 10 == (beat == beats - 1), f"{what}: last"
    assert not received


def flags(dut):
    return {name for name in FLAGS if int(getattr(dut, name).value)}


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_corner_blocks(dut):
    """Every kind of block under single candidates of every width, and under four."""
    p = bench.parameters()
    rng = random.Random(p["seed"])
    idle(dut)
    await bench.start(dut)
    for count in (1, 3, p["lanes"], min(p["block"], 40)):
        work = []
        for _, block in corner_blocks(rng, count):
            work += [
                (block, SquParameters(candidates=(Candidate(bits=rng.choice((4, 8, 12, 16)), offset=rng.choice((-1, 0, 0, 1))),)))
            ]
            work += [(block, random_parameters(rng)) for _ in range(2)]
        for exponent in (-128, rng.randint(-120, 105), 106):
            work += [
                (
                    round_the_window(rng, max(count, 6), exponent),
                    SquParameters(candidates=(Candidate(bits=bits),), exponent=exponent),
                )
                for bits in QMAX
            ]
        await run_blocks(dut, work, bench.always(), bench.always(), rng)


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_random_blocks_under_patterns(dut):
    """Blocks of all lengths, idle and back-pressure of all kinds crossed."""
    p = bench.parameters()
    rng = random.Random(p["seed"] + 1)
    idle(dut)
    await bench.start(dut)
    for name_in, pattern_in in bench.PATTERNS.items():
        for name_out, pattern_out in bench.PATTERNS.items():
            longest = min(p["block"], 12 * p["lanes"] if "rare" in (name_in, name_out) else 300)
            lengths = [rng.choice((1, rng.randint(1, 3 * p["lanes"]), rng.randint(1, longest))) for _ in range(12)]
            work = [(random_block(rng, min(n, p["block"])), random_parameters(rng)) for n in lengths]
            await run_blocks(dut, work, pattern_in(1), pattern_out(2), rng)


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_full_blocks(dut):
    """Blocks as long as they may be, with one to four candidates, long and short ones mixed."""
    p = bench.parameters()
    rng = random.Random(p["seed"] + 2)
    idle(dut)
    await bench.start(dut)
    work = []
    for count in (1, 2, 3, 4, 1, 1, 4):
        parameters = random_parameters(rng)
        work.append(
            (random_block(rng, p["block"]), SquParameters(candidates=(parameters.candidates * 4)[:count], metric=count % 3))
        )
        work.append((random_block(rng, rng.randint(1, p["block"])), random_parameters(rng)))
        work.append((random_block(rng, rng.randint(1, p["lanes"])), random_parameters(rng)))
    await run_blocks(dut, work, bench.bursts(31, 2), bench.bursts(50, 3), rng)


async def output_cycles(dut, work, rng):
    """Cycles in which each block's first and last results left, and in which its last beat was taken."""
    lanes = bench.parameters()["lanes"]
    beats = [-(-len(block) // lanes) for block, _ in work]
    dut.o__ready.value = 1
    cocotb.start_soon(feed(dut, work, bench.always(), rng))
    cycle = 0
    taken: list[int] = []
    left: list[int] = []
    words: list[int] = []
    while len(left) < sum(beats):
        await ReadOnly()
        if int(dut.i__valid.value) and int(dut.i__ready.value):
            taken.append(cycle)
        if int(dut.o__valid.value):
            left.append(cycle)
            words.append(int(dut.o__payload.value))
        await RisingEdge(dut.clk)
        cycle += 1
    check_beats(work, words)
    ends = [sum(beats[: i + 1]) - 1 for i in range(len(beats))]
    return (
        [taken[end] for end in ends],
        [left[end - n + 1] for end, n in zip(ends, beats, strict=True)],
        [left[end] for end in ends],
    )


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_throughput_and_latency(dut):
    """A beat every c cycles without a bubble; shorter blocks as the docstring says; the latency of a lone block."""
    p = bench.parameters()
    rng = random.Random(p["seed"] + 3)
    idle(dut)
    await bench.start(dut)
    full = p["block"] // p["lanes"]
    bound = p["bubble_free_beats"]
    for candidates in (1, 2, 3, 4):
        parameters = SquParameters(candidates=tuple(Candidate(bits=8, offset=-i) for i in range(candidates)))
        for beats in sorted({min(beats, full) for beats in (1, 2, 3, bound - 1, bound, full)}):
            work = [(random_block(rng, beats * p["lanes"]), parameters) for _ in range(12 if beats < 100 else 6)]
            _, firsts, lasts = await output_cycles(dut, work, rng)
            # The rate of the steady state: from the fourth block, when the ring is full, to the end.
            spans, blocks = lasts[-1] - lasts[3 if beats < 100 else 1], len(work) - (4 if beats < 100 else 2)
            if candidates == 1:
                expected = max(2 * beats, beats + bound) * blocks / 2
            else:
                expected = (candidates * beats + max(0, bound - beats)) * blocks
            assert spans == expected, f"{candidates} candidates, {beats} beats: {blocks} blocks in {spans} cycles, not {expected}"
            if beats >= bound and candidates == 1:
                assert lasts[-1] - firsts[0] == len(work) * beats - 1, "a bubble between blocks"
            taken, firsts, _ = await output_cycles(dut, work[:1], rng)
            assert firsts[0] - taken[0] == p["latency"][candidates - 1] + beats * candidates


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_flags(dut):
    """Each flag is raised by its cause alone, holds, and is cleared; a cause in the cycle of `clear` counts."""
    p = bench.parameters()
    rng = random.Random(p["seed"] + 4)
    idle(dut)
    await bench.start(dut)
    plain = SquParameters(candidates=(Candidate(bits=8),))
    huge, tiny = patterns([3e38]), [1]
    causes = [
        (set(), patterns([1.0]), plain),
        (set(), [ZERO], SquParameters(candidates=(Candidate(bits=8, offset=-8), Candidate(bits=4, offset=7)))),
        ({"nan_seen"}, [NAN], plain),
        ({"infinity_seen"}, [INFINITY | SIGN], plain),
        ({"nan_seen", "infinity_seen"}, [INFINITY, 0xFF800001][: p["block"]], plain),
        ({"settings_illegal"}, patterns([-1.0]), SquParameters(candidates=(Candidate(bits=4), Candidate(bits=8, clip=128)))),
        ({"settings_illegal"}, patterns([-1.0]), SquParameters(candidates=(Candidate(bits=4), Candidate(bits=8)), metric=3)),
        ({"exponent_clamped"}, huge, SquParameters(candidates=(Candidate(bits=4, offset=2),))),
        (set(), huge, SquParameters(candidates=(Candidate(bits=4, offset=1),))),
        ({"exponent_clamped"}, tiny, SquParameters(candidates=(Candidate(bits=8), Candidate(bits=16, offset=-1)))),
        (set(), tiny, SquParameters(candidates=(Candidate(bits=16, offset=0),))),
        ({"exponent_clamped"}, tiny, SquParameters(candidates=(Candidate(bits=8, offset=3),), exponent=125)),
    ]
    for expected, block, parameters in causes:
        await run_blocks(dut, [(block, parameters)], bench.always(), bench.always(), rng)
        assert flags(dut) == expected, f"{flags(dut)} instead of {expected} for {block} under {parameters}"
        await run_blocks(dut, [(patterns([2.0]), plain)], bench.always(), bench.always(), rng)
        assert flags(dut) == expected, "a flag does not hold"
        dut.clear.value = 1
        await RisingEdge(dut.clk)
        dut.clear.value = 0
        await RisingEdge(dut.clk)
        assert flags(dut) == set()


async def flags_by_cycle(dut, block, parameters, clear):
    """The flags in every cycle of one block, `clear` high in those that it names."""
    work = cocotb.start_soon(run_blocks(dut, [(block, parameters)], bench.always(), bench.always(), random.Random(1)))
    found: list[set[str]] = []
    while not work.done():
        dut.clear.value = int(len(found) in clear)
        await ReadOnly()
        found.append(flags(dut))
        await RisingEdge(dut.clk)
    dut.clear.value = 0
    return found


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_clear_in_every_cycle(dut):
    """A flag holds what was found since the last clear, in its cycle included."""
    p = bench.parameters()
    idle(dut)
    await bench.start(dut)
    clamped = SquParameters(candidates=(Candidate(bits=4, offset=2), Candidate(bits=8, clip=128)), metric=3)
    block = [*patterns([3e38]), NAN, INFINITY][: p["block"]]
    # Under a clear that is held a flag shows what was found in the cycle before alone.
    found = await flags_by_cycle(dut, block, clamped, range(10_000))
    assert set().union(*found) == set(FLAGS) - {"overlong_block"} and not found[0]
    at_once = Counter[str]()
    for cycle in range(len(found)):
        got = await flags_by_cycle(dut, block, clamped, {cycle})
        for now in range(1, len(found)):
            since = cycle if now > cycle else 0
            assert got[now] == set().union(*found[since + 1 : now + 1]), f"cleared in cycle {cycle}, cycle {now}"
        at_once.update(found[cycle + 1] if cycle + 1 < len(found) else ())
        dut.clear.value = 1
        await RisingEdge(dut.clk)
        dut.clear.value = 0
        await RisingEdge(dut.clk)
    assert at_once.keys() == set(FLAGS) - {"overlong_block"}


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_illegal_settings(dut):
    """Clips above Qmax and metric 3 count as what the page says, and nothing hangs."""
    p = bench.parameters()
    rng = random.Random(p["seed"] + 5)
    idle(dut)
    await bench.start(dut)
    for _ in range(4):
        work = [(random_block(rng, rng.randint(1, min(p["block"], 60))), random_parameters(rng, illegal=True)) for _ in range(15)]
        dut.clear.value = 1
        await RisingEdge(dut.clk)
        dut.clear.value = 0
        await run_blocks(dut, work, bench.always(), bench.mostly(0.7, 3), rng)
        golden = [quantize_block(block, parameters) for block, parameters in work]
        assert ("exponent_clamped" in flags(dut)) == any(g.clamped for g in golden)
        assert ("settings_illegal" in flags(dut)) == any(parameters.illegal for _, parameters in work)
        assert ("nan_seen" in flags(dut)) == any(g.nan for g in golden)
        assert ("infinity_seen" in flags(dut)) == any(g.infinity for g in golden)
        assert "overlong_block" not in flags(dut)


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_overlong_block(dut):
    """A block that does not end in time ends at its largest length; the rest is a block of its own."""
    p = bench.parameters()
    rng = random.Random(p["seed"] + 6)
    idle(dut)
    await bench.start(dut)
    parameters = random_parameters(rng)
    parts = [random_block(rng, p["block"]), random_block(rng, p["block"]), random_block(rng, p["lanes"] + 1)]
    work = [(part, parameters) for part in parts]

    async def feed_all():
        await feed(dut, work[:1], bench.always(), rng, marked=False)
        await ReadOnly()
        assert flags(dut) >= {"overlong_block"}
        await RisingEdge(dut.clk)
        await feed(dut, work[1:2], bench.always(), rng, marked=False)
        await feed(dut, work[2:], bench.always(), rng)

    cocotb.start_soon(feed_all())
    count = sum(len(beats_of(block, p["lanes"])) for block in parts)
    check_beats(work, await bench.receive(dut, "o", count, bench.mostly(0.8, 1)))
    assert "overlong_block" in flags(dut)


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_reset_at_any_moment(dut):
    """Whatever was inside is gone, flags too."""
    p = bench.parameters()
    rng = random.Random(p["seed"] + 7)
    idle(dut)
    await bench.start(dut)
    for cycles in (*range(1, 40, 3), 100, 333):
        work = [(random_block(rng, rng.randint(1, min(p["block"], 100))), random_parameters(rng, illegal=True)) for _ in range(20)]
        feeder = cocotb.start_soon(feed(dut, work, bench.always(), rng))
        for _ in range(cycles):
            dut.o__ready.value = rng.getrandbits(1)
            await RisingEdge(dut.clk)
        feeder.cancel()
        idle(dut)
        await bench.reset(dut, 1)
        assert flags(dut) == set() and not int(dut.o__valid.value)
        await run_blocks(dut, work[:3], bench.always(), bench.always(), rng)


@pytest.mark.parametrize("lanes, block", [(8, 1024), (4, 32), (1, 16), (16, 32)])
def test_squ(lanes, block):
    squ = Squ(lanes, block)
    parameters = {
        "lanes": lanes,
        "block": block,
        "seed": 1,
        "bubble_free_beats": squ.bubble_free_beats,
        "latency": [squ.latency(0, candidates) for candidates in (1, 2, 3, 4)],
    }
    bench.run(squ, __file__, f"squ_{lanes}_{block}", parameters=parameters)


def exact(pattern):
    """The rational that a finite pattern stands for."""
    field, fraction = pattern >> 23 & 255, pattern & 0x7FFFFF
    magnitude = Fraction(fraction + (2**23 if field else 0)) * Fraction(2) ** (max(field, 1) - 150)
    return -magnitude if pattern >> 31 else magnitude


def is_finite(pattern):
    return pattern >> 23 & 255 != 255


def plain(block, p):
    """The definition as it stands, in rationals: q, exponent and width of the winner, from uncut numbers where that is allowed."""
    numbers = [exact(x) if is_finite(x) else Fraction(0) for x in block]
    theta = max(map(abs, numbers))
    tops = [top for top in range(-150, 129) if theta < Fraction(2) ** top]
    top = tops[0] if p.exponent is None else p.exponent + 15
    unit = Fraction(2) ** (top - 24)
    cut = [min(floor(abs(x) / unit) * unit, Fraction(2) ** top - unit) for x in numbers]
    outcomes = []
    for c in p.candidates:
        start = next(e for e in range(-128, 200) if theta <= c.q_max * Fraction(2) ** e) if p.exponent is None else p.exponent
        e = -128 if theta == 0 and p.exponent is None else min(max(start + c.offset, -128), 127)
        step = Fraction(2) ** e
        q, errors = [], []
        for pattern, x, near in zip(block, numbers, cut, strict=True):
            # Only beyond a bypassed statistic's window does the limit of the window matter.
            magnitude = near if p.exponent is not None and abs(x) >= Fraction(2) ** top else abs(x)
            value = min(floor(magnitude / step + Fraction(1, 2)), c.limit)
            infinite = not is_finite(pattern) and pattern & 0x7FFFFF == 0
            value = c.limit if infinite else value
            sign = -1 if pattern >> 31 else 1
            q.append(sign * value)
            errors.append(0 if not is_finite(pattern) else sign * (near - value * step))
        if p.metric == 1:
            error = abs(sum(errors))
        elif p.metric == 2:
            error = max(map(abs, errors))
        else:
            error = sum(map(abs, errors))
        outcomes.append((error, q, e, c.bits))
    best = min(range(len(outcomes)), key=lambda i: outcomes[i][0])
    return best, *outcomes[best][1:]


def check_golden(block, p):
    golden = quantize_block(block, p)
    winner, q, e, bits = plain(block, p)
    assert (golden.winner, golden.e, golden.bits) == (winner, e, bits), f"{block} under {p}"
    assert golden.q.tolist() == q, f"{block} under {p}"


@pytest.mark.parametrize("seed", range(8))
def test_golden_is_the_definition(seed):
    """Random and corner blocks against rationals; that q is computed from uncut numbers shows that cutting changes none."""
    rng = random.Random(seed)
    for count in (1, 2, 17):
        for _, block in corner_blocks(rng, count):
            check_golden(block, random_parameters(rng, illegal=True))
    for _ in range(60):
        check_golden(random_block(rng, rng.randint(1, 12)), random_parameters(rng))


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_golden_agrees_with_float(bits):
    """One unclipped candidate is round-half-away of x / 2^e in float64, and never off by more than half a step."""
    rng = np.random.default_rng(bits)
    for _ in range(50):
        x = (rng.standard_normal(1024) * 2.0 ** rng.integers(-60, 60)).astype(np.float32)
        golden = quantize_block(x.view(np.uint32), SquParameters(candidates=(Candidate(bits=bits),)))
        step = 2.0**golden.e
        ratio = x.astype(np.float64) / step
        assert np.array_equal(golden.q, np.sign(ratio) * np.floor(np.abs(ratio) + 0.5))
        assert np.abs(golden.q - ratio).max() <= 0.5 and np.abs(golden.q).max() > QMAX[bits] // 2


def test_golden_multiplexing_helps():
    """With a long tail a candidate that clips it has the lesser Σ|x − x'|; without, it does not win."""
    rng = np.random.default_rng(0)
    body = rng.standard_normal(1023).astype(np.float32)
    p = SquParameters(candidates=(Candidate(bits=4), Candidate(bits=4, offset=-2)))
    assert quantize_block(np.append(body, np.float32(20)).view(np.uint32), p).winner == 1
    assert quantize_block(rng.uniform(-1, 1, 1024).astype(np.float32).view(np.uint32), p).winner == 0


def test_parameters_are_checked():
    for lanes, block in ((3, 1024), (0, 16), (8, 8), (8, 1000)):
        with pytest.raises(ValueError):
            Squ(lanes, block)
    for wrong in ({"bits": 5}, {"bits": 8, "offset": 8}, {"bits": 8, "clip": 2**15}):
        with pytest.raises(ValueError):
            Candidate(**wrong)
    for candidates, metric in ((), 0), ((Candidate(bits=4),), 4):
        with pytest.raises(ValueError):
            SquParameters(candidates=candidates, metric=metric)
