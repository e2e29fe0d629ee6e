import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.buffers.nbout import Nbout


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_words(dut):
    """Random rows and masks, two readers; a row is not read in the cycle in which it is written."""
    p, rng = bench.parameters(), random.Random(random.getrandbits(32))
    lanes, rows = p["lanes"], p["words"] // p["lanes"]
    for port in ("read_enable", "read_row", "second__valid", "second__payload", "write_enable", "write_row", "write_data"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    model: list[int | None] = [None] * p["words"]
    first: list[int | None] = [None] * lanes
    second: list[int | None] = [None] * lanes
    near = [rng.randrange(rows) for _ in range(6)] + [0, 1, rows - 2, rows - 1]
    refused = both = 0
    for _ in range(3000):
        write, read, other = (rng.choice(near) for _ in range(3))
        mask = rng.choice([0, (1 << lanes) - 1, 1 << rng.randrange(lanes), rng.getrandbits(lanes)])
        words = [rng.getrandbits(32) for _ in range(lanes)]
        reading = rng.random() < 0.6 and not (mask and read == write)
        asking = rng.random() < 0.7 and not (mask and other == write)
        dut.write_enable.value, dut.write_row.value, dut.write_data.value = mask, write, bench.pack(words, 32)
        dut.read_enable.value, dut.read_row.value = int(reading), read
        dut.second__valid.value, dut.second__payload.value = int(asking), other
        await ReadOnly()
        for port, shown in ((dut.read_data, first), (dut.second_data, second)):
            found = bench.unpack(int(port.value), 32, lanes)
            assert all(word in (None, ours) for word, ours in zip(shown, found, strict=True))
        free = not reading or read % 2 != other % 2
        assert bool(dut.second__ready.value) == free
        refused, both = refused + (asking and not free), both + (asking and free and reading)
        await RisingEdge(dut.clk)
        # What was read in an earlier cycle means nothing.
        first = model[read * lanes : (read + 1) * lanes] if reading else [None] * lanes
        second = model[other * lanes : (other + 1) * lanes] if asking and free else [None] * lanes
        for lane in range(lanes):
            if mask >> lane & 1:
                model[write * lanes + lane] = words[lane]
    assert model.count(None) < p["words"] and refused > 200 and both > 200


@pytest.mark.parametrize("words, lanes", [(8, 2), (64, 2), (1024, 16)])
def test_nbout(words, lanes):
    bench.run(Nbout(words, lanes), __file__, f"nbout_{words}_{lanes}", parameters={"words": words, "lanes": lanes})


@pytest.mark.parametrize("arguments", [(64, 1), (64, 3), (60, 2), (16, 16), (32, 16)])
def test_illegal_parameters(arguments):
    with pytest.raises(ValueError):
        Nbout(*arguments)
