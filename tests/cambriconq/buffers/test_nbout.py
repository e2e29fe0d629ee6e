import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.buffers.nbout import Nbout


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_words(dut):
    """Random rows and masks; a read holds until the next; a row is not read in the cycle in which it is written."""
    p, rng = bench.parameters(), random.Random(random.getrandbits(32))
    lanes, rows = p["lanes"], p["words"] // p["lanes"]
    for port in ("read_enable", "read_row", "write_enable", "write_row", "write_data"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    model: list[int | None] = [None] * p["words"]
    shown: list[int | None] = [None] * lanes
    near = [rng.randrange(rows) for _ in range(6)] + [0, rows - 1]
    for _ in range(3000):
        write, read = rng.choice(near), rng.choice(near)
        mask = rng.choice([0, (1 << lanes) - 1, 1 << rng.randrange(lanes), rng.getrandbits(lanes)])
        words = [rng.getrandbits(32) for _ in range(lanes)]
        reading = rng.random() < 0.6 and not (mask and read == write)
        dut.write_enable.value, dut.write_row.value, dut.write_data.value = mask, write, bench.pack(words, 32)
        dut.read_enable.value, dut.read_row.value = int(reading), read
        await ReadOnly()
        found = bench.unpack(int(dut.read_data.value), 32, lanes)
        assert all(word in (None, ours) for word, ours in zip(shown, found, strict=True))
        await RisingEdge(dut.clk)
        if reading:
            shown = model[read * lanes : (read + 1) * lanes]
        for lane in range(lanes):
            if mask >> lane & 1:
                model[write * lanes + lane] = words[lane]
    assert model.count(None) < p["words"]


@pytest.mark.parametrize("words, lanes", [(64, 2), (1024, 16)])
def test_nbout(words, lanes):
    bench.run(Nbout(words, lanes), __file__, f"nbout_{lanes}", parameters={"words": words, "lanes": lanes})


@pytest.mark.parametrize("arguments", [(64, 1), (64, 3), (60, 2), (16, 16)])
def test_illegal_parameters(arguments):
    with pytest.raises(ValueError):
        Nbout(*arguments)
