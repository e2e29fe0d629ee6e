"""The table of CROSET's bits (`isa.CONSTANTS`) is what the checker refuses and the machine understands."""

import numpy as np
import pytest
from nibblecore.hdl.cambriconq.program.isa import CONSTANTS, Constant
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.golden.cambriconq.machine import Machine
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.golden.cambriconq.program.instruction_checker import check

TINY = CAMBRICONQ["tiny"]


def refused(register, value):
    return check("CROSET", {"register": int(register), "value": value}, TINY, 1 << 10) == ErrorCode.BAD_FORMAT


def packed(register, **values):
    return sum((values[f.name] & (1 << f.width) - 1) << f.low for f in CONSTANTS[register])


def test_every_register_is_there():
    assert set(CONSTANTS) == set(Constant)


@pytest.mark.parametrize("register", Constant, ids=lambda register: register.name)
def test_bits_that_are_not_listed_are_refused_in_the_settings_of_an_squ(register):
    listed = {f.low + bit for f in CONSTANTS[register] for bit in range(f.width)}
    for bit in set(range(32)) - listed:
        assert refused(register, 1 << bit) == (register >= Constant.SQU), bit
    for f in CONSTANTS[register]:
        assert not refused(register, 1 << f.low) and (f.name == "clip" or not refused(register, 1 << f.low + f.width - 1))


@pytest.mark.parametrize("base", [Constant.SQU, Constant.MEMORY_SQU])
def test_the_machine_takes_the_fields_as_listed(base):
    machine = Machine(TINY, np.zeros(64, np.uint8), lambda number, values: values)
    value = packed(base, count=2, metric=1, bypass=1, exponent=-9)
    candidate = packed(Constant(base + 3), size=3, offset=-5, clip=32767)
    assert not refused(base, value) and not refused(base + 3, candidate)
    machine._croset(int(base), value)
    machine._croset(int(base + 3), candidate)
    settings = machine.core_squ if base == Constant.SQU else machine.memory_squ
    assert (settings.count, settings.metric, settings.exponent) == (3, 1, -9)
    assert (settings.candidates[2].bits, settings.candidates[2].offset, settings.candidates[2].clip) == (16, -5, 32767)
    assert refused(base, packed(base, count=0, metric=3, bypass=0, exponent=0))
    assert refused(base + 1, packed(Constant(base + 1), size=1, offset=0, clip=128))


def test_the_optimizer_takes_its_bits():
    machine = Machine(TINY, np.zeros(64, np.uint8), lambda number, values: values)
    for use_m in (0, 1):
        for use_rsqrt in (0, 1):
            machine._croset(int(Constant.OPTIMIZER), packed(Constant.OPTIMIZER, use_m=use_m, use_rsqrt=use_rsqrt))
            assert (machine.optimizer.use_m, machine.optimizer.use_rsqrt) == (bool(use_m), bool(use_rsqrt))
