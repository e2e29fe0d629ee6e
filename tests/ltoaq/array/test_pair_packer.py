import random

import bench
import cocotb
import pytest
from cocotb.triggers import Timer
from nibblecore.sim.golden.ltoaq.array.pair_packer import multiplicands, packed
from nibblecore.sim.golden.ltoaq.array.wide_pe import word_sums


async def check(dut, role, lanes, eight_bit):
    dut.lanes.value, dut.eight_bit.value = bench.pack(lanes, 6), int(eight_bit)
    await Timer(1, "ns")
    got, expected = int(dut.word.value), packed(lanes, role, eight_bit=eight_bit)
    if eight_bit and role == "w":
        got, expected = got >> 12, expected >> 12
    assert got == expected, f"{lanes}, eight_bit {eight_bit}"


@cocotb.test()
async def bench_every_pair(dut):
    """Every two values on the lanes of a multiplicand, in random company."""
    role, rng = bench.parameters()["role"], random.Random(random.getrandbits(32))
    for low in range(-31, 32):
        for high in range(-31, 32):
            for pair in ((0, 3), (3, 0), (1, 2), (2, 1)):
                lanes = [rng.randint(-31, 31) for _ in range(4)]
                lanes[pair[0]], lanes[pair[1]] = low, high
                await check(dut, role, lanes, False)


@cocotb.test()
async def bench_every_8_bit_operand(dut):
    role = bench.parameters()["role"]
    for value in range(-1024, 1024):
        low, high = value % 32, value // 32
        await check(dut, role, [low, high, low, high] if role == "a" else [low, low, high, high], True)


@pytest.mark.parametrize("role", ["a", "w"])
def test_packer(role):
    from nibblecore.hdl.ltoaq.array.pair_packer import PairPacker

    bench.run(PairPacker(role), __file__, f"pair_packer_{role}", parameters={"role": role})


def test_other_roles_are_refused():
    from nibblecore.hdl.ltoaq.array.pair_packer import PairPacker

    with pytest.raises(ValueError, match="role"):
        PairPacker("b")


def test_golden_refuses_what_18_bits_do_not_hold():
    multiplicands([-1, 0, 0, -31], "a", eight_bit=False)
    with pytest.raises(ValueError, match="18 bits"):
        multiplicands([-1, 0, 0, -32], "a", eight_bit=False)


def test_golden_products_hold_the_sums():
    """By the place value alone, without the PE's way of reading them."""
    rng = random.Random(4)
    for _ in range(2000):
        a, w = ([rng.randint(-31, 31) for _ in range(4)] for _ in "aw")
        products = [
            x * y for x, y in zip(multiplicands(a, "a", eight_bit=False), multiplicands(w, "w", eight_bit=False), strict=True)
        ]
        lowest = a[1] * w[2], a[0] * w[3]
        highest = a[2] * w[1], a[3] * w[0]
        sums = [(p - low) // 4096 - 4096 * high for p, low, high in zip(products, lowest, highest, strict=True)]
        assert sum(sums) == word_sums(a, w, eight_bit=False)
        x, y = (rng.randint(-1024, 1023) for _ in "aw")
        words = [x % 32, x // 32, x % 32, x // 32], [y % 32, y % 32, y // 32, y // 32]
        (_, outer_a), (_, outer_w) = (multiplicands(word, role, eight_bit=True) for word, role in zip(words, "aw", strict=True))
        assert outer_a * outer_w == 4096 * x * y == 4096 * word_sums(*words, eight_bit=True)
