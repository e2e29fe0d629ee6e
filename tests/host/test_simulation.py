import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from host import copier
from nibblecore.hdl.config import PAPER, TINY
from nibblecore.sim.host import simulation
from nibblecore.sim.host.simulation import Simulation, SimulationError
from nibblecore.sim.host.transport import BusError

SIZE = 1 << 16


def simulate(config=TINY, **options):
    return Simulation(config, component=copier.Copier(config.bus_bytes), **{"memory_size": SIZE, **options})


def start(sim, source, target, beats, fault=0):
    for offset, value in ((copier.SOURCE, source), (copier.TARGET, target), (copier.BEATS, beats), (copier.FAULT, fault)):
        sim.write_register(offset, value)
    sim.write_register(copier.START, 1)


def fill(sim, seed):
    data = np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)
    sim.write_memory(0, data.tobytes())
    return data


@pytest.mark.parametrize("config", [TINY, PAPER], ids=lambda config: config.name)
@pytest.mark.parametrize("stall", [0.0, 0.5, 0.9])
def test_copies(config, stall):
    with simulate(config, stall=stall, seed=7) as sim:
        expected_memory = fill(sim, 1)
        rng = np.random.default_rng(2)
        for _ in range(20):
            beats = int(rng.integers(1, min(256, 4096 // config.bus_bytes)))
            source, target = (int(page) * 4096 for page in rng.choice(SIZE // 4096, 2, replace=False))
            start(sim, source, target, beats)
            sim.wait(100_000)
            assert sim.read_register(copier.STATUS) == 1
            size = beats * config.bus_bytes
            expected_memory[target : target + size] = expected_memory[source : source + size]
            assert np.array_equal(sim.memory, expected_memory)
        assert sim.read_beats == sim.write_beats > 20


def test_a_beat_a_cycle_after_the_latency():
    cycles = {}
    for latency in (1, 50):
        for beats in (10, 210):
            with simulate(latency=latency) as sim:
                start(sim, 0, 4096, beats)
                before = sim.cycles
                sim.wait(10_000)
                cycles[latency, beats] = sim.cycles - before
    assert cycles[1, 210] - cycles[1, 10] == cycles[50, 210] - cycles[50, 10] == 200
    assert cycles[50, 10] - cycles[1, 10] == 2 * 49


def test_same_seed_same_cycles():
    def cycles(seed):
        with simulate(stall=0.5, seed=seed) as sim:
            start(sim, 0, 4096, 200)
            sim.wait(10_000)
            return sim.cycles

    assert cycles(3) == cycles(3)
    assert len({cycles(seed) for seed in range(5)}) > 1


def test_writes_appear_with_their_response():
    with simulate(latency=30) as sim:
        fill(sim, 3)
        before = sim.read_memory(4096, 80)
        start(sim, 0, 4096, 10)
        while sim.write_beats < 10:
            sim.run(1)
        assert sim.read_memory(4096, 80) == before
        sim.wait(100)
        assert sim.read_memory(4096, 80) == sim.read_memory(0, 80)


def test_outside_the_memory():
    """The burst that leaves the memory writes what is inside and is answered DECERR; reading outside is DECERR and 0."""
    with simulate(memory_size=SIZE) as sim:
        data = fill(sim, 4)
        start(sim, SIZE, 0, 4)
        sim.wait(1000)
        assert sim.read_register(copier.STATUS) == 1 | 3 << 2
        assert sim.read_memory(0, 32) == bytes(32)
        start(sim, 4096, SIZE, 4)
        sim.wait(1000)
        assert sim.read_register(copier.STATUS) == 1 | 3 << 4
        assert np.array_equal(sim.memory[32:], data[32:])


@pytest.mark.parametrize("response", [1, 2, 3])
def test_answers(response):
    """Of one beat among others, which is carried out all the same, until the answer is OKAY again; no other beat has it."""
    with simulate() as sim:
        data = fill(sim, 5)
        for place in range(4):
            for read, write in ((response, 0), (0, response), (0, 0)):
                sim.answer(8 * place, read)
                sim.answer(4096 + 8 * place, write)
                sim.write_memory(4096, bytes(32))
                start(sim, 0, 4096, 4)
                sim.wait(1000)
                assert sim.read_register(copier.STATUS) == 1 | read << 2 | write << 4
                assert sim.read_memory(4096, 32) == data[:32].tobytes()
        for address, wrong in ((4, response), (SIZE, response), (0, 4), (0, -1)):
            with pytest.raises(ValueError):
                sim.answer(address, wrong)


@pytest.mark.parametrize(
    ("fault", "message"), [(1, "wlast is 0 on beat 4 of 4"), (2, "AW changed"), (3, "size is 2"), (4, "AR valid was withdrawn")]
)
def test_broken_rules_are_found(fault, message):
    with simulate(stall=0.7, seed=1) as sim:
        with pytest.raises(SimulationError, match=message):
            for _ in range(20):
                start(sim, 0, 4096, 4, fault)
                sim.wait(1000)
        sim.reset()
        start(sim, 0, 4096, 4)
        sim.wait(1000)


def test_page_boundary_and_alignment():
    for source, message in ((4096 - 8, "4 KiB"), (4, "aligned")):
        with simulate() as sim, pytest.raises(SimulationError, match=message):
            start(sim, source, 8192, 2)
            sim.wait(1000)


def test_registers():
    with simulate(stall=0.5) as sim:
        for value in (0, 1, 0xDEADBEEF, 0xFFFFFFFF):
            sim.write_register(copier.SOURCE, value)
            assert sim.read_register(copier.SOURCE) == value
        with pytest.raises(BusError, match="0x20"):
            sim.write_register(0x20, 1)
        with pytest.raises(BusError, match="0x20"):
            sim.read_register(0x20)
        with pytest.raises(ValueError, match="32 bits"):
            sim.write_register(copier.SOURCE, 1 << 32)
        sim.write_register(copier.FAULT, 5)
        with pytest.raises(SimulationError, match="never answered"):
            sim.read_register(copier.SOURCE)


def test_reset_in_the_middle_of_a_burst():
    with simulate(stall=0.3) as sim:
        data = fill(sim, 5)
        start(sim, 0, 4096, 200)
        sim.run(60)
        sim.reset()
        sim.run(500)
        assert np.array_equal(sim.memory, data)
        start(sim, 0, 8192, 200)
        sim.wait(10_000)
        assert sim.read_memory(8192, 1600) == sim.read_memory(0, 1600)


def test_wait_counts_cycles_and_gives_up():
    with simulate() as sim:
        before = sim.cycles
        with pytest.raises(TimeoutError, match="45000 cycles"):
            sim.wait(45_000)
        assert sim.cycles - before == 45_000


def test_bad_arguments_and_use_after_close():
    for options in ({"latency": 0}, {"stall": 1.0}, {"stall": -0.1}, {"memory_size": 0}, {"memory_size": 12}):
        with pytest.raises(ValueError):
            Simulation(TINY, **options)
    sim = simulate()
    for address, size in ((-1, 4), (SIZE - 3, 4), (0, -1)):
        with pytest.raises(ValueError, match="not all in"):
            sim.read_memory(address, size)
    with pytest.raises(ValueError, match="not all in"):
        sim.write_memory(SIZE - 1, b"ab")
    sim.close()
    sim.close()
    with pytest.raises(SimulationError, match="closed"):
        sim.run(1)


def written_beats(file):
    """What a waveform says was written: `wdata` of every rising clock edge with `wvalid` and `wready`, by a reader that is not ours."""
    import pylibfst

    reader = pylibfst.lib.fstReaderOpen(str(file).encode())
    assert reader != pylibfst.ffi.NULL, "not an FST file"
    try:
        handles: dict[int, str] = {}
        for path, signal in pylibfst.get_scopes_signals2(reader)[1].by_name.items():
            handles.setdefault(signal.handle, path.rsplit(".", 1)[-1].split()[0])
        wanted = {"clk", "m_axi__wvalid", "m_axi__wready", "m_axi__wdata"}
        names = {handle: name for handle, name in handles.items() if name in wanted}
        assert set(names.values()) == wanted
        changes: dict[int, dict[str, str]] = {}

        def change(_, time, handle, value):
            if handle in names:
                changes.setdefault(time, {})[names[handle]] = pylibfst.string(value)

        pylibfst.lib.fstReaderSetFacProcessMaskAll(reader)
        assert pylibfst.fstReaderIterBlocks(reader, change)
    finally:
        pylibfst.lib.fstReaderClose(reader)
    now: dict[str, str] = {}
    beats = []
    for time in sorted(changes):
        before = dict(now)
        now |= changes[time]
        if before.get("clk") == "0" and now["clk"] == "1" and before["m_axi__wvalid"] == before["m_axi__wready"] == "1":
            beats.append(int(before["m_axi__wdata"], 2))
    return beats


def test_waves(tmp_path):
    file = tmp_path / "waves.fst"
    with simulate(waves=file) as sim:
        data = fill(sim, 3)
        start(sim, 8, 4096, 200)
        sim.wait(10_000)
        cycles = sim.cycles
    assert written_beats(file) == data[8 : 8 + 8 * 200].view("<u8").tolist()
    assert file.stat().st_size < 100 * cycles


def test_failed_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NIBBLECORE_CACHE", str(tmp_path))
    with pytest.raises(SimulationError, match="Verilator failed"):
        simulation.build(PAPER, component=copier.Copier(8))  # the harness expects 32 bytes
    assert not list((tmp_path / "sim").rglob("*.so"))
    assert not list(tmp_path.rglob(".making*"))


def test_built_once_under_a_parallel_make(tmp_path, monkeypatch):
    """A jobserver's MAKEFLAGS must not reach the make that Verilator starts; a second process finds the library."""
    build = (
        "import copier; from nibblecore.sim.host import simulation; "
        "from nibblecore.hdl.config import TINY; "
        "simulation.build(TINY, component=copier.Copier(8))"
    )
    (tmp_path / "Makefile").write_text(f'all:\n\t@PYTHONPATH={Path(__file__).parent} $(PYTHON) -c "{build}"\n')
    make = ["make", "-j2", "-C", str(tmp_path), f"PYTHON={sys.executable}", "CONFIG=tiny", "WAVES=0"]
    monkeypatch.setenv("NIBBLECORE_CACHE", str(tmp_path / "a cache"))
    run = subprocess.run(make, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "jobserver" not in run.stdout + run.stderr
    (library,) = tmp_path.rglob("simulation.so")
    assert sorted(path.name for path in library.parent.iterdir()) == ["simulation.so", "top.v"]
    assert not list(tmp_path.rglob(".making*"))

    stamp = library.stat().st_mtime_ns
    assert simulation.build(TINY, component=copier.Copier(8)) == library
    assert library.stat().st_mtime_ns == stamp
