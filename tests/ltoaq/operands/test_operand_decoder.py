import random
from fractions import Fraction

import bench
import cocotb
import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import Timer
from nibblecore.hdl.config import PAPER
from nibblecore.hdl.ltoaq.operands.operand_decoder import OperandDecoder
from nibblecore.hdl.ltoaq.operands.operand_setup import OperandSetup
from nibblecore.sim.golden.ltoaq.operands.operand_decoder import decode_operand, operand_lanes
from nibblecore.sim.golden.ltoaq.operands.residual_clip import clip_residuals


def code_max(bits, signed):
    return 2 ** (bits - 1) - 1 if signed else 2**bits - 1


class DecoderWithSetup(wiring.Component):
    """A decoder as it is used: its settings come from the format."""

    def __init__(self, role):
        self.role = role
        super().__init__(
            {
                "eight_bit": In(1),
                "is_signed": In(1),
                "threshold": In(8),
                "k": In(2),
                "codes": In(16),
                "flags": In(4),
                "lanes": Out(24),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.setup = setup = OperandSetup()
        m.submodules.decoder = decoder = OperandDecoder(self.role)
        m.d.comb += [
            setup.eight_bit.eq(self.eight_bit),
            setup.is_signed.eq(self.is_signed),
            setup.threshold.eq(self.threshold),
            setup.k.eq(self.k),
            decoder.settings.eq(setup.settings),
            decoder.codes.eq(self.codes),
            decoder.flags.eq(self.flags),
            self.lanes.eq(decoder.lanes),
        ]
        return m


async def decode(dut, codes, flags):
    dut.codes.value, dut.flags.value = codes, flags
    await Timer(1, "ns")
    return bench.unpack(int(dut.lanes.value), 6, 4, signed=True)


def set_format(dut, bits, signed, threshold, k):
    dut.eight_bit.value, dut.is_signed.value, dut.threshold.value, dut.k.value = bits == 8, signed, threshold, k


@cocotb.test()
async def bench_every_four_bit_code(dut):
    """Every code under thresholds at the ends and two between; the proof does the rest."""
    rng = random.Random(4)
    for signed in (False, True):
        top = code_max(4, signed)
        for threshold in {1, top, *rng.sample(range(2, top), 2)}:
            for k in range(4):
                set_format(dut, 4, signed, threshold, k)
                # Each of the 32 elements on every lane, in company that changes.
                elements = [[(code, flag) for code in range(16) for flag in (0, 1)] for _ in range(4)]
                for lane in elements:
                    rng.shuffle(lane)
                for word in zip(*elements, strict=True):
                    patterns, flags = zip(*word, strict=True)
                    codes = clip_residuals(patterns, flags, 4, signed, threshold, k, PAPER.value_max(4)).tolist()
                    lanes = await decode(dut, bench.pack(codes, 4), bench.pack(flags, 1))
                    expected = decode_operand(codes, flags, 4, signed, threshold, k, PAPER.value_max(4))
                    assert lanes == list(expected), f"codes {codes}, flags {flags}, signed {signed}, T {threshold}, k {k}"


@cocotb.test()
async def bench_eight_bit_codes(dut):
    role = bench.parameters()["role"]
    rng = random.Random(8)
    for signed in (False, True):
        top = code_max(8, signed)
        for threshold in (1, 32, 33, top, rng.randint(1, top)):
            for k in range(4):
                set_format(dut, 8, signed, threshold, k)
                codes = np.repeat([0, 1, 31, 32, 127, 128, 129, 255, *(rng.randrange(256) for _ in range(12))], 2)
                flags = np.tile([0, 1], len(codes) // 2)
                codes = clip_residuals(codes, flags, 8, signed, threshold, k, PAPER.value_max(8))
                values = decode_operand(codes, flags, 8, signed, threshold, k, PAPER.value_max(8))
                for code, flag, expected in zip(codes, flags, operand_lanes(values, 8, role), strict=True):
                    # What the unused codes and flags hold does not matter.
                    lanes = await decode(dut, int(code) | rng.getrandbits(8) << 8, int(flag) | rng.getrandbits(3) << 1)
                    assert lanes == list(expected), f"code {code}, outlier {flag}, signed {signed}, T {threshold}, k {k}"


@cocotb.test()
async def bench_wrong_formats_stay_within_their_lanes(dut):
    """T outside 1..Qmax and residuals beyond the range decode to something; the next good word is as if nothing had happened."""
    for threshold in (0, 7, 8, 255):
        set_format(dut, 4, True, threshold, 3)
        for code in range(16):
            assert all(-32 <= lane <= 31 for lane in await decode(dut, code * 0x1111, 15))
    set_format(dut, 4, True, 7, 1)
    assert await decode(dut, 0x9753, 0b0011) == [13, 17, 7, -7]


@pytest.mark.parametrize("role", ["a", "w"])
def test_operand_decoder(role):
    bench.run(DecoderWithSetup(role), __file__, f"operand_{role}", parameters={"role": role})


def test_unknown_role_is_refused():
    with pytest.raises(ValueError, match="role"):
        OperandDecoder("b")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_golden_is_the_table_of_formats(bits, signed):
    value_max = PAPER.value_max(bits)
    for threshold in {1, 5, code_max(bits, signed)}:
        for k in range(4):
            for code in range(2**bits):
                if signed:
                    sign, q = (-1, code - 2 ** (bits - 1)) if code >> (bits - 1) else (1, code)
                    normal = code - 2**bits if code >> (bits - 1) else code
                else:
                    sign, q, normal = 1, code, code
                outlier = sign * max(Fraction(threshold) + r * 2**k for r in range(q + 1) if threshold + r * 2**k <= value_max)
                assert decode_operand([code, code], [0, 1], bits, signed, threshold, k, value_max).tolist() == [normal, outlier]


def test_golden_lanes_multiply_to_the_product():
    rng = np.random.default_rng(1)
    a, w = rng.integers(-1023, 1024, (2, 1000))
    products = operand_lanes(a, 8, "a") * operand_lanes(w, 8, "w")
    assert np.array_equal(products @ [1, 32, 32, 1024], a * w)
    assert np.array_equal(operand_lanes(np.arange(8).reshape(2, 4), 4, "w"), np.arange(8).reshape(2, 4))
