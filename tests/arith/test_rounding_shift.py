from fractions import Fraction
from math import floor

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import Timer
from nibblecore.sim.golden.arith.rounding_shift import rounding_shift


@cocotb.test()
async def bench_every_input(dut):
    p = bench.parameters()
    magnitudes = np.arange(2 ** p["width"])
    for shift in range(2 ** p["max_shift"].bit_length()):
        dut.shift.value = shift
        for magnitude, expected in zip(magnitudes.tolist(), rounding_shift(magnitudes, shift).tolist(), strict=True):
            dut.i.value = magnitude
            await Timer(1, "ns")
            assert int(dut.o.value) == expected, f"{magnitude} >> {shift}"


def test_rounding_shift():
    from nibblecore.hdl.arith.rounding_shift import RoundingShift

    bench.run(RoundingShift(10, 12), __file__, "rounding_shift", parameters={"width": 10, "max_shift": 12})


def test_golden_rounds_half_up():
    for shift in range(8):
        for magnitude in range(300):
            assert rounding_shift(magnitude, shift) == floor(Fraction(magnitude, 2**shift) + Fraction(1, 2))


@pytest.mark.parametrize("width, max_shift", [(0, 4), (4, 0)])
def test_refuses_nothing_to_shift(width, max_shift):
    from nibblecore.hdl.arith.rounding_shift import RoundingShift

    with pytest.raises(ValueError, match="must be positive"):
        RoundingShift(width, max_shift)
