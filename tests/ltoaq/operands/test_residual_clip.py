import random
from fractions import Fraction

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import Timer
from nibblecore.hdl.config import PAPER
from nibblecore.hdl.ltoaq.command.job import OperandFormat
from nibblecore.hdl.ltoaq.operands.residual_clip import ResidualClip
from nibblecore.hdl.ltoaq.operands.transposer import beat_layout
from nibblecore.sim.golden.ltoaq.operands.residual_clip import clip_residuals
from structs import join


def formats(bits, rng):
    for signed in (False, True):
        top = 2 ** (bits - signed) - 1
        for threshold in {1, 2, top - 1, top, *(rng.randint(1, top) for _ in range(3))}:
            for k in range(4):
                yield signed, threshold, k


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_every_code(dut):
    """Every code, flagged and not, on every lane, under thresholds at the ends and between."""
    block, rng = bench.parameters()["block"], random.Random(random.getrandbits(32))
    layout = beat_layout(block)
    clipped_once = 0
    for bits in (4, 8):
        lanes = block * block * 4 // bits
        for signed, threshold, k in formats(bits, rng):
            dut.eight_bit.value = int(bits == 8)
            dut.format.value = join(OperandFormat, {"signed": signed, "k": k, "threshold": threshold})
            elements = [(code, flag) for code in range(2**bits) for flag in (0, 1)]
            if bits == 8:
                elements = rng.sample(elements, 64)
            for shift in range(0, len(elements), max(1, len(elements) // 8)):
                rng.shuffle(elements)
                codes, flags = zip(*(elements[(shift + lane) % len(elements)] for lane in range(lanes)), strict=True)
                noise = rng.getrandbits(lanes) if bits == 8 else 0  # flags that mean nothing
                word = join(layout, {"codes": bench.pack(codes, bits), "flags": bench.pack(flags, 1) | noise << lanes})
                dut.i.value = word
                await Timer(1, "ns")
                expected = clip_residuals(codes, flags, bits, signed, threshold, k, PAPER.value_max(bits))
                got = int(dut.o.value)
                assert bench.unpack(got, bits, lanes) == expected.tolist(), f"{bits} bits, signed {signed}, T {threshold}, k {k}"
                assert got >> 4 * block**2 == word >> 4 * block**2, "flags changed"
                clipped_once += int((expected != codes).sum())
    assert clipped_once > 500


@pytest.mark.parametrize("block", [4, 8])
def test_residual_clip(block):
    bench.run(ResidualClip(block), __file__, f"residual_clip_{block}", parameters={"block": block})


@pytest.mark.parametrize("bits", [4, 8])
def test_golden_takes_the_largest_residual_in_range(bits):
    rng = random.Random(1)
    value_max = PAPER.value_max(bits)
    for signed, threshold, k in formats(bits, rng):
        codes = np.arange(2**bits)
        assert clip_residuals(codes, np.zeros(2**bits), bits, signed, threshold, k, value_max).tolist() == codes.tolist()
        for code, got in enumerate(clip_residuals(codes, np.ones(2**bits), bits, signed, threshold, k, value_max).tolist()):
            sign = code & 2 ** (bits - 1) if signed else 0
            allowed = [r for r in range(code - sign + 1) if threshold + r * Fraction(2) ** k <= value_max]
            assert got == sign + max(allowed)
