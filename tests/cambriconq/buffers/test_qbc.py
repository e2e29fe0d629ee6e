import random
from fractions import Fraction

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.buffers.qbc import Qbc
from nibblecore.sim.golden.cambriconq.buffers.qbc import Qbc as GoldenQbc
from nibblecore.sim.golden.cambriconq.buffers.qbc import Refusal, greater_tag, requantize
from nibblecore.sim.golden.cambriconq.machine import Tag

BITS = (4, 8, 12, 16)


def q_max(bits):
    return 2 ** (bits - 1) - 1


def pack(*fields):
    """A payload from pairs of value and width, the first least significant."""
    word = at = 0
    for value, width in fields:
        word |= (int(value) & (1 << width) - 1) << at
        at += width
    return word


class Bench:
    """Drives all ports each cycle and compares with the golden twin: a read, then an element, then a line, then `clear`."""

    def __init__(self, dut):
        p = bench.parameters()
        self.dut, self.lines, self.cols = dut, p["lines"], p["cols"]
        self.line_bits, self.index_bits = (self.lines - 1).bit_length(), (self.cols - 1).bit_length()
        self.golden = GoldenQbc(self.lines, self.cols)
        self.flags, self.seen, self.expected, self.cycle = set(), set(), None, 0
        self.accepted = []  # cycles in which elements were
        for name in (
            "write__valid",
            "write__payload",
            "element__valid",
            "element__payload",
            "read_enable",
            "read_line",
            "clear",
            "flush",
            "clear_errors",
        ):
            getattr(dut, name).value = 0

    async def start(self):
        await bench.start(self.dut)
        await self.swept()

    async def swept(self):
        """Wait until writes are taken; reads find nothing until then."""
        for waited in range(self.lines + 2):
            if (await self.step(read=waited % self.lines, write=(self.lines - 1, Tag(1, 4), [5] * self.cols)))[1]:
                return waited
        raise AssertionError("the sweep does not end")

    def element(self, line, slot, index, tag, value):
        return pack((line, self.line_bits), (slot - 1, 2), (index, self.index_bits), (tag.pack(), 10), (value, 16))

    async def step(self, *, read=None, element=None, write=None, clear=False, flush=False, clear_errors=False):
        """One cycle; returns whether the element and the line were taken."""
        d, golden = self.dut, self.golden
        d.read_enable.value, d.clear.value, d.flush.value, d.clear_errors.value = read is not None, clear, flush, clear_errors
        d.element__valid.value, d.write__valid.value = element is not None, write is not None
        if read is not None:
            d.read_line.value = read
        if element is not None:
            d.element__payload.value = self.element(*element)
        if write is not None:
            line, tag, nibbles = write
            d.write__payload.value = pack((line, self.line_bits), (tag.pack(), 10), (bench.pack(nibbles, 4), 4 * self.cols))
        await ReadOnly()
        self.check_read()
        assert int(d.errors.value) == sum(1 << place for place, name in enumerate(Refusal) if name in self.flags)
        element_taken = element is not None and bool(int(d.element__ready.value))
        write_taken = write is not None and bool(int(d.write__ready.value))
        if read is not None:
            self.expected = (read, None if clear else golden.read(read))
        if clear_errors:
            self.flags = set()
        if element_taken:
            self.accepted.append(self.cycle)
            self.flags |= {golden.write_element(*element)} - {None}
            self.seen |= self.flags
        if write_taken:
            golden.write(line, nibbles, tag)
        if clear:
            golden.clear()
        await RisingEdge(d.clk)
        self.cycle += 1
        return element_taken, write_taken

    def check_read(self):
        if self.expected is None:
            return
        (line, wanted), d, self.expected = self.expected, self.dut, None
        if not int(d.read_valid.value):
            assert wanted is None, f"line {line} is invalid, should be {wanted}"
            return
        found = bench.unpack(int(d.read_data.value), 4, self.cols), Tag.unpack(int(d.read_tag.value))
        assert found == wanted, f"line {line}: {found}, should be {wanted}"

    async def check_all(self):
        for line in range(self.lines):
            await self.step(read=line)
        await self.step()

    async def put(self, *element, limit=40):
        for _ in range(limit):
            if (await self.step(element=element))[0]:
                return
        raise AssertionError(f"element {element} is not taken")

    async def put_vector(self, line, tag, values):
        for place in range(tag.bits // 4):
            await self.step(write=(line + place, tag, [v >> 4 * place & 15 for v in values]))


def random_tag(rng, spread):
    exponent = rng.choice((-128, 127, rng.randint(-128, 127))) if rng.random() < 0.03 else rng.randint(0, spread)
    return Tag(exponent, rng.choice(BITS))


def random_value(rng, tag):
    limit = q_max(tag.bits)
    if rng.random() < 0.05:
        return rng.choice((-32768, 32767, rng.randint(-32768, 32767)))
    return rng.choice((-limit, limit, 0, rng.randint(-limit, limit), rng.randint(-limit, limit)))


async def random_traffic(b, rng, cycles, *, element, write, read, spread, dwell, aligned, clear=0.0):
    """All ports at once; probabilities or patterns, and how many elements in a row go to one vector."""
    pending_element = pending_write = None
    waited, vector = 0, (0, 4)
    for _ in range(cycles):
        if pending_element is None and next(element):
            if rng.random() < 1 / dwell:
                slot = rng.choice((1, 2, 3, 4, 4, 4))
                vector = (4 * rng.randrange(b.lines // 4), 4) if aligned else (rng.randrange(b.lines), slot)
            tag = random_tag(rng, spread)
            pending_element = (*vector, rng.randrange(b.cols), tag, random_value(rng, tag))
        if pending_write is None and next(write):
            line = (vector[0] + rng.randint(-1, 4)) % b.lines if rng.random() < 0.5 else rng.randrange(b.lines)
            pending_write = (line, random_tag(rng, 2), [rng.randrange(16) for _ in range(b.cols)])
        reading = None
        if next(read):
            reading = (vector[0] + rng.randint(-1, 4)) % b.lines if rng.random() < 0.6 else rng.randrange(b.lines)
            if pending_write and pending_write[0] == reading:
                reading = None
        element_taken, write_taken = await b.step(
            read=reading,
            element=pending_element,
            write=pending_write,
            clear=rng.random() < clear,
            flush=rng.random() < 0.02,
            clear_errors=rng.random() < 0.05,
        )
        waited = 0 if element_taken or pending_element is None else waited + 1
        assert waited < 1500, "an element is held up for ever"
        pending_element = None if element_taken else pending_element
        pending_write = None if write_taken else pending_write
    if pending_element:
        await b.put(*pending_element, limit=100)
    await b.check_all()


@cocotb.test()
async def bench_random_traffic(dut):
    """All ports at once under all patterns: collisions of every kind, requantization, errors, flushes."""
    b, rng = Bench(dut), random.Random(bench.parameters()["seed"])
    await b.start()
    for number, pattern in enumerate(bench.PATTERNS.values()):
        for busy in (0.05, 0.5):
            for aligned in (False, True):
                await random_traffic(
                    b,
                    rng,
                    bench.parameters()["cycles"],
                    element=pattern(number),
                    write=bench.mostly(busy / 4, number),
                    read=bench.mostly(busy, number),
                    spread=rng.choice((2, 20)),
                    dwell=rng.choice((1, 4, 20)),
                    aligned=aligned,
                    clear=0.004,
                )
    assert b.seen == set(Refusal)


@cocotb.test()
async def bench_elements_alone(dut):
    """Without line writes every element of an aligned slot is taken, and nothing is in error."""
    b, rng = Bench(dut), random.Random(bench.parameters()["seed"] + 1)
    await b.start()
    for spread, dwell in ((1, 30), (6, 8), (40, 3), (6, 1)):
        await random_traffic(
            b,
            rng,
            bench.parameters()["cycles"],
            element=bench.always(),
            write=iter(bool, True),
            read=bench.mostly(0.2, 1),
            spread=spread,
            dwell=dwell,
            aligned=True,
        )
    assert not b.flags


@cocotb.test()
async def bench_requantization(dut):
    """Every pair of widths, every distance of exponents, corner values; read from the Selected Line and from the memory."""
    b, rng = Bench(dut), random.Random(bench.parameters()["seed"] + 2)
    await b.start()
    for bits in BITS:
        for value_bits in BITS:
            for distance in (0, 1, 2, 3, 7, 14, 15, 16, 17, 32, 255, -1, -2, -4, -11, -15, -16, -31, -255):
                base = rng.randint(-128, 127 - abs(distance)) if abs(distance) < 200 else -128
                tag, value_tag = Tag(base + max(-distance, 0), bits), Tag(base + max(distance, 0), value_bits)
                half = 1 << max(abs(distance) - 1, 0)
                corners = [q_max(bits), -q_max(bits), half, -half, half - 1, 1 - half, 3 * half, -3 * half, -(q_max(bits) + 1)]
                values = [rng.choice((rng.choice(corners), rng.randint(-q_max(bits), q_max(bits)))) for _ in range(b.cols)]
                values = [v if -q_max(bits) - 1 <= v <= q_max(bits) else rng.choice((1, -1)) * q_max(bits) for v in values]
                value = rng.choice((q_max(value_bits), -q_max(value_bits), half % 32768, -half % -32768))
                await b.put_vector(4, tag, values)
                await b.put(4, 4, rng.randrange(b.cols), value_tag, value)
                # The first sees the edit on its way, the others the Selected Line, and after the flush the memory.
                for line in (4, 7, 6, 5):
                    await b.step(read=line)
                assert not int(dut.clean.value)
                await b.step(flush=True)
                for _ in range(6):
                    await b.step()
                assert int(dut.clean.value)
                for line in (4, 5, 6, 7):
                    await b.step(read=line)
    assert not b.flags


@cocotb.test()
async def bench_cycles(dut):
    """One element a cycle in one vector, whatever its tag; changes of vector; lines at full rate beside it."""
    p = bench.parameters()
    b, rng = Bench(dut), random.Random(p["seed"] + 3)
    await b.start()
    await b.put(0, 4, 0, Tag(0, 8), 1)
    for number in range(60):
        tag = Tag(rng.randint(0, number), rng.choice(BITS))
        assert (await b.step(element=(0, 4, rng.randrange(b.cols), tag, random_value(rng, tag))))[0], "not one element a cycle"
    await b.check_all()
    for dirty in range(1, 5):
        for stored in range(5):
            await b.step(clear=True)
            await b.swept()
            if stored:
                await b.put_vector(8, Tag(3, 4 * stored), [1] * b.cols)
            await b.put(0, 4, 0, Tag(0, 4 * dirty), 1)
            await b.put(8, 4, 1, Tag(3, 4), 1)
            between = b.accepted[-1] - b.accepted[-2] - 1
            assert between == p["switch_cycles"][dirty][stored], f"{dirty} lines, {stored} lines: {between} cycles"
    await b.check_all()
    # Lines in and out each cycle, all the while an element waits for a gap and for nothing else.
    element = (0, 4, 0, Tag(9, 8), 5)
    for number in range(3 * b.lines):
        line = number % b.lines
        taken, write_taken = await b.step(
            read=(line + 9) % b.lines, write=(line, Tag(4, 4), [rng.randrange(16) for _ in range(b.cols)]), element=element
        )
        assert write_taken and not taken
    await b.put(*element, limit=10)
    await b.check_all()


@cocotb.test()
async def bench_errors(dut):
    """Each error by its cause alone; nothing is changed; the next element is taken."""
    b, rng = Bench(dut), random.Random(bench.parameters()["seed"] + 4)
    await b.start()
    last = b.lines - 1
    whole = Tag(0, 16)
    causes = [
        (Refusal.OUT_OF_RANGE, None, (last, 2, 0, Tag(0, 4), 1)),
        (Refusal.OUT_OF_RANGE, None, (last - 2, 4, 0, Tag(0, 4), 1)),
        (None, None, (last, 1, 0, Tag(9, 4), 1)),
        (None, None, (last - 3, 4, 0, whole, 1000)),
        (Refusal.NO_ROOM, None, (last, 1, 0, Tag(9, 4), 1)),
        (Refusal.NO_ROOM, None, (0, 1, 0, Tag(0, 8), 1)),
        (None, None, (0, 1, 0, Tag(5, 4), -3)),
        (Refusal.NO_ROOM, None, (0, 3, 0, Tag(6, 16), 1)),
        (None, None, (0, 3, 0, Tag(4, 16), 100)),
        (None, None, (0, 3, 0, Tag(5, 12), 100)),
        (Refusal.NO_ROOM, None, (0, 2, 0, Tag(5, 4), 1)),
        (Refusal.NO_ROOM, None, (8, 3, 0, Tag(90, 4), 1)),
        (Refusal.PARTLY_OVERWRITTEN, (9, Tag(0, 12)), (8, 4, 0, Tag(0, 16), 1)),
        (Refusal.PARTLY_OVERWRITTEN, (11, Tag(1, 16)), (8, 4, 0, Tag(0, 16), 1)),
        (None, (8, Tag(1, 4)), (8, 4, 0, Tag(-9, 16), 1)),
    ]
    for expected, line, element in causes:
        # A 16-bit vector at line 8, once each.
        if element[0] == 8:
            await b.put_vector(8, whole, [rng.randint(-9999, 9999) for _ in range(b.cols)])
        if line:
            await b.step(write=(*line, [rng.randrange(16) for _ in range(b.cols)]))
        await b.put(*element)
        await b.step()
        assert b.flags == ({expected} if expected else set()), f"{b.flags} instead of {expected} for {element}"
        await b.check_all()
        await b.step(clear_errors=True)
    # A cause in the cycle of `clear_errors` counts.
    await b.step(element=causes[0][2], clear_errors=True)
    assert b.flags == {Refusal.OUT_OF_RANGE}
    await b.step()


@cocotb.test()
async def bench_clear_and_reset(dut):
    """`clear` at any moment, with and without a sweep; a reset in the middle of everything."""
    p = bench.parameters()
    b, rng = Bench(dut), random.Random(p["seed"] + 5)
    await b.start()
    sweeps = []
    for number in range(3 * 2 ** min(p["generation_bits"], 3)):
        await b.put_vector(4, Tag(1, 8), [rng.randint(-99, 99) for _ in range(b.cols)])
        element = (rng.choice((0, 4)), 4, 0, Tag(2, 12), 77)
        for _ in range(number % 12):
            await b.step(element=element, read=rng.randrange(4))
        await b.step(element=element, clear=True, read=4, write=(5, Tag(0, 4), [1] * b.cols))
        sweeps.append(await b.swept())
        await b.check_all()
    assert all(wait in (0, b.lines) for wait in sweeps)
    assert (b.lines in sweeps) == (p["generation_bits"] < 4)
    for moment in range(14):
        await b.put_vector(4, Tag(1, 8), [rng.randint(-99, 99) for _ in range(b.cols)])
        await b.put(0, 4, 1, Tag(1, 12), 1000)
        for _ in range(moment):
            await b.step(element=(4, 4, 0, Tag(2, 12), 77))
        dut.rst.value = 1
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        b.golden, b.flags, b.expected = GoldenQbc(b.lines, b.cols), set(), None
        assert await b.swept() == b.lines
        await b.check_all()
        await b.put(4, 1, 0, Tag(2, 4), 7)
        await b.check_all()


def build(lines, cols, generation_bits, cycles):
    block = Qbc(lines, cols, generation_bits)
    switch = [[block.switch_cycles(dirty, stored) for stored in range(5)] for dirty in range(5)]
    parameters = {
        "lines": lines,
        "cols": cols,
        "generation_bits": generation_bits,
        "cycles": cycles,
        "switch_cycles": switch,
        "seed": 1,
    }
    bench.run(block, __file__, f"qbc_{lines}x{cols}", parameters=parameters)


def test_qbc():
    build(16, 4, 2, 1200)


def test_qbc_wide():
    build(32, 32, 8, 200)


def plain(q, tag, target):
    """q · 2^e in steps of the target: half away from zero, clipped; in rationals."""
    step = Fraction(2) ** target.exponent
    exact = abs(q * Fraction(2) ** tag.exponent) / step
    magnitude = min(int(exact + Fraction(1, 2)), q_max(target.bits))
    return -magnitude if q < 0 else magnitude


@pytest.mark.parametrize("bits", BITS)
def test_golden_is_the_definition(bits):
    """Against rationals and, where float64 is exact, against floats."""
    rng = random.Random(bits)
    for target_bits in BITS:
        for distance in (0, 1, 2, 3, 5, 8, 13, 14, 15, 16, 17, 40, 255):
            tag = Tag(rng.randint(-128, 127 - distance), bits)
            target = Tag(tag.exponent + distance, target_bits)
            q = np.array([rng.randint(-q_max(bits), q_max(bits)) for _ in range(50)] + [q_max(bits), -q_max(bits), 0, 1, -1])
            found = requantize(q, tag, target)
            assert found.tolist() == [plain(int(v), tag, target) for v in q]
            ratio = q * 2.0**tag.exponent / 2.0**target.exponent
            assert np.array_equal(found, np.sign(ratio) * np.minimum(np.floor(np.abs(ratio) + 0.5), q_max(target_bits)))


def test_golden_greater_tag():
    assert greater_tag(Tag(-3, 16), Tag(2, 4)) == Tag(2, 4)
    assert greater_tag(Tag(2, 4), Tag(2, 12)) == Tag(2, 12)
    assert greater_tag(Tag(2, 16), Tag(2, 12)) == Tag(2, 16)


def test_golden_depends_on_order():
    """Rounding twice is not rounding once, and clipping is not undone: what a value becomes depends on the order of the tags."""
    fine, middle, coarse = Tag(0, 8), Tag(1, 8), Tag(2, 8)
    assert requantize(5, fine, coarse) == 1 and requantize(requantize(5, fine, middle), middle, coarse) == 2
    results = []
    for order in ((fine, middle, coarse), (fine, coarse, middle)):
        buffer = GoldenQbc(4, 4)
        for place, tag in enumerate(order):
            assert buffer.write_element(0, 4, place, tag, 5 if place == 0 else 0) is None
        assert buffer.tags[:3] == [coarse, coarse, None]
        results.append(int(buffer.vector(0, coarse)[0]))
    assert results == [2, 1]
    # At equal steps from the exact value, never by more than a step off.
    rng = random.Random(1)
    for _ in range(500):
        q, steps = rng.randint(-(2**13), 2**13), sorted(rng.sample(range(10), 3))
        tags = [Tag(step, 16) for step in steps]
        twice = requantize(requantize(q, tags[0], tags[1]), tags[1], tags[2])
        assert abs(int(twice) - Fraction(q) / 2 ** (steps[2] - steps[0])) < 1


def test_golden_keeps_what_it_should():
    buffer = GoldenQbc(8, 4)
    assert buffer.write_element(2, 2, 1, Tag(0, 8), -100) is None
    assert buffer.vector(2, Tag(0, 8)).tolist() == [0, -100, 0, 0] and buffer.tags[1] is None and buffer.tags[4] is None
    assert buffer.write_element(2, 2, 0, Tag(4, 4), 7) is None
    assert buffer.vector(2, Tag(4, 4)).tolist() == [7, -6, 0, 0] and buffer.tags[3] is None
    before = buffer.nibbles.copy(), list(buffer.tags)
    assert buffer.write_element(2, 2, 0, Tag(5, 12), 7) == Refusal.NO_ROOM
    assert buffer.write_element(7, 2, 0, Tag(5, 4), 7) == Refusal.OUT_OF_RANGE
    buffer.write(3, [0] * 4, Tag(4, 8))
    buffer.write(2, [0] * 4, Tag(3, 8))
    before = buffer.nibbles.copy(), list(buffer.tags)
    assert buffer.write_element(2, 2, 0, Tag(4, 8), 7) == Refusal.PARTLY_OVERWRITTEN
    assert np.array_equal(buffer.nibbles, before[0]) and buffer.tags == before[1]


def test_parameters_are_checked():
    for wrong in ((2, 8), (12, 8), (16, 6), (16, 1), (16, 8, 0)):
        with pytest.raises(ValueError):
            Qbc(*wrong)
