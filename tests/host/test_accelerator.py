"""What the drivers of both machines have in common."""

import re
from pathlib import Path

import pytest
from nibblecore.hdl.config import CAMBRICONQ, TINY
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport as CambriconqTransport
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport as LtoaqTransport
from nibblecore.sim.host.simulation import SimulationError
from nibblecore.sim.host.transport import BusError

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
MACHINES = {
    "ltoaq": (LtoaqAccelerator, TINY, LtoaqTransport),
    "cambriconq": (CambriconqAccelerator, CAMBRICONQ["tiny"], CambriconqTransport),
}


@pytest.fixture(params=MACHINES)
def machine(request):
    return MACHINES[request.param]


def test_the_sample_of_the_readme(capsys):
    (sample,) = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    assert 'transport="simulation"' in sample
    exec(compile(sample.replace("simulation", "functional"), "README.md", "exec"), {})
    assert re.fullmatch(r"(b'nibbles' \{.*'cycles': 0,.*\}\n){2}", capsys.readouterr().out)


def test_transports_have_names(machine):
    driver, config, _ = machine
    with pytest.raises(ValueError, match='"simulation", "functional" or a Transport, not \'rtl\''):
        driver(config, transport="rtl")
    with pytest.raises(ValueError, match="only the simulation writes waves"):
        driver(config, transport="functional", waves=True)
    with pytest.raises(ValueError, match="stall"):
        driver(config, stall=1.0)


def test_the_simulation_is_closed_by_who_opened_it(machine):
    driver, config, _ = machine
    with driver(config, memory_size=1 << 16, seed=3, stall=0.2) as accelerator:
        accelerator.write_memory(100, b"abc")
        assert accelerator.read_memory(99, 5) == b"\0abc\0" and accelerator.memory_size == 1 << 16
        with driver(config, transport=accelerator.transport, memory_size=1 << 12) as less:
            assert less.memory_size == 1 << 12
        with driver(config, transport=accelerator.transport) as second:
            assert second.counters()["cycles"] == 0 and second.memory_size == 1 << 16
        accelerator.reset()
        assert second.read_memory(100, 3) == b"abc"
    with pytest.raises(SimulationError, match="closed"):
        accelerator.counters()


def test_counters_go_on_over_wrapping_and_resets(machine):
    driver, config, functional = machine
    transport = functional(config, 1 << 12)
    transport._registers["CYCLES"] = 2**32 - 5
    accelerator = driver(config, transport=transport)
    assert accelerator.counters()["cycles"] == 0
    transport._registers["CYCLES"] = 7
    assert accelerator.counters()["cycles"] == 12
    accelerator.reset()
    transport._registers["CYCLES"] += 3
    assert accelerator.counters()["cycles"] == 15 and set(accelerator.counters()) >= {"cycles", "array_cycles"}


def test_what_cannot_be_reset_says_so(machine):
    driver, config, functional = machine

    class Board:
        def __init__(self):
            inner = functional(config, 1 << 12)
            self.memory_size, self.read_register, self.write_register = 1 << 12, inner.read_register, inner.write_register

    with pytest.raises(RuntimeError, match="a Board cannot reset"):
        driver(config, transport=Board()).reset()


def test_the_model_refuses_what_the_bus_refuses(machine):
    driver, config, functional = machine
    transport, registers = functional(config, 1 << 12), driver.REGISTERS
    with pytest.raises(BusError, match="CONTROL is write only"):
        transport.read_register(registers["CONTROL"].offset)
    with pytest.raises(BusError, match="CYCLES is read only"):
        transport.write_register(registers["CYCLES"].offset, 0)
    with pytest.raises(BusError, match="no register at 0x7c"):
        transport.read_register(0x7C)
    for address, size in ((-1, 4), (4093, 4), (0, -1)):
        with pytest.raises(ValueError, match="not all in a memory of 0x1000"):
            transport.read_memory(address, size)
    with pytest.raises(ValueError, match="not all in"):
        transport.write_memory(4095, b"ab")
    with pytest.raises(TimeoutError, match="nothing is at work"):
        transport.wait(10)
