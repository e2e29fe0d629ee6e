import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.program.job import PlaceRange
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.golden.cambriconq.control.scoreboard import Lane, Range, Space, conflict, lane_of, ranges
from structs import join

LANES = 3


def word(place):
    return join(PlaceRange, {"space": place.space, "low": place.low, "high": place.high, "write": place.write})


def some(rng):
    """Up to four ranges, close together, so that most overlap and many touch."""
    found = []
    for _ in range(rng.randint(0, 4)):
        low = rng.choice((0, rng.randrange(60), 2**32 - 1 - rng.randrange(20)))
        found.append(Range(Space(rng.randrange(4)), low, low + rng.randint(1, 12), bool(rng.getrandbits(1))))
    return found


async def tick(dut, **values):
    """One cycle with these inputs, the others 0; what it ends with."""
    for name in ("fresh", "place_valid", "issue", "ended"):
        getattr(dut, name).value = values.get(name, 0)
    dut.place.value = values.get("place", random.getrandbits(68))
    await RisingEdge(dut.clk)


async def start(dut):
    for port in ("fresh", "place_valid", "place", "issue", "ended"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return random.Random(random.getrandbits(32))


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_waits(dut):
    """Instructions begin, go to work and end in any order, lanes also while the next one's ranges are noted."""
    rng, waited, free = await start(dut), 0, 0
    at_work: dict[int, list] = {}
    for turn in range(4000):
        if turn == 2000:
            await bench.reset(dut)
            at_work = {}
        new, ended, noted = some(rng), set(), []
        await tick(dut, fresh=1)
        for place in new:
            ending = rng.randrange(LANES) if rng.random() < 0.2 else None
            await tick(dut, place_valid=1, place=word(place), ended=0 if ending is None else 1 << ending)
            noted.append(place)
            if ending is not None:
                at_work.pop(ending, None)
                ended.add(ending)
            if rng.random() < 0.5:
                await tick(dut)
        await tick(dut)
        await ReadOnly()
        expected = sum(1 << lane for lane, work in at_work.items() if lane not in ended and conflict(work, new))
        assert int(dut.waits.value) == expected, (turn, new, at_work)
        waited, free = waited + (expected != 0), free + (expected == 0 and bool(new) and bool(at_work))
        await RisingEdge(dut.clk)
        for lane in list(at_work):
            if expected >> lane & 1 or rng.random() < 0.3:
                await tick(dut, ended=1 << lane)
                del at_work[lane]
                expected &= ~(1 << lane)
                await ReadOnly()
                assert int(dut.waits.value) == expected
                await RisingEdge(dut.clk)
        lanes = [lane for lane in range(LANES) if lane not in at_work]
        if lanes and rng.random() < 0.8:
            lane = rng.choice(lanes)
            await tick(dut, issue=1 << lane)
            at_work[lane] = new
    assert waited > 300 and free > 300


@pytest.mark.parametrize("lanes", [LANES])
def test_scoreboard(lanes):
    from nibblecore.hdl.cambriconq.control.scoreboard import Scoreboard

    bench.run(Scoreboard(lanes), __file__, "scoreboard")


def touched(name, fields, config):
    """Every element of every place of an instruction, one by one."""
    rows, cols = fields.get("rows", 1), fields.get("cols", 1)
    for i in range(rows):
        for j in range(cols):
            for place in ("a", "b", "src"):
                if place in fields:
                    yield Space.NBOUT, fields[place] + i * fields[f"{place}_row"] + j * fields[f"{place}_col"], False
            yield Space.NBOUT, fields["dest"] + i * fields["dest_row"] + j * fields.get("dest_col", 0), True


def test_ranges_are_as_small_as_can_be():
    """First and last element are those of the plain loops over rows and columns."""
    rng, config = random.Random(5), CAMBRICONQ["tiny"]
    for _ in range(200):
        name = rng.choice(("VADD", "VFUN", "HADD"))
        places = {"VADD": ("a", "b"), "VFUN": ("a",), "HADD": ("src",)}[name]
        fields = {"rows": rng.randint(1, 9), "cols": rng.randint(1, 9), "dest": rng.randrange(99), "dest_row": rng.randrange(9)}
        if name != "HADD":
            fields["dest_col"] = rng.randrange(9)
        for place in places:
            fields |= {place: rng.randrange(99), f"{place}_row": rng.randrange(9), f"{place}_col": rng.randrange(9)}
        elements = list(touched(name, fields, config))
        for write in (True, False):
            found = [r for r in ranges(name, fields, config) if r.write == write]
            mine = [at for space, at, written in elements if written == write]
            assert min(r.low for r in found) == min(mine) and max(r.high for r in found) == max(mine) + 1


def test_every_instruction_has_a_lane():
    assert [lane_of(name) for name in ("QLOAD", "QMOVE", "WGSTORE", "MM", "HADD")] == [
        Lane.LOAD,
        Lane.STORE,
        Lane.STORE,
        Lane.COMPUTE,
        Lane.COMPUTE,
    ]


def test_conflicts():
    read, write = Range(Space.NBOUT, 4, 8), Range(Space.NBOUT, 7, 9, True)
    assert conflict([read], [write]) and conflict([write], [read]) and conflict([write], [write])
    assert not conflict([read], [read])
    assert not conflict([read], [Range(Space.NBOUT, 8, 9, True)]) and not conflict([read], [Range(Space.NBIN, 4, 8, True)])
