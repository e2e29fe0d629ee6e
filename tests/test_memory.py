import random

import bench
import cocotb
from cocotb.triggers import ReadOnly, RisingEdge


@cocotb.test()
async def bench_reads_what_was_written(dut):
    p = bench.parameters()
    rng = random.Random(p["seed"])
    for port in ("write_enable", "write_address", "write_data", "read_enable", "read_address"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    model: dict[int, int] = {}
    expected = None
    for _ in range(2000):
        write, read = rng.randrange(p["depth"]), rng.randrange(p["depth"])
        data = rng.getrandbits(p["width"])
        writing = rng.random() < 0.5 and read != write
        dut.write_enable.value, dut.write_address.value, dut.write_data.value = int(writing), write, data
        reading = rng.random() < 0.7 and read in model
        dut.read_enable.value, dut.read_address.value = int(reading), read
        await ReadOnly()
        if expected is not None:
            assert int(dut.read_data.value) == expected
        await RisingEdge(dut.clk)
        if reading:
            expected = model[read]
        if writing:
            model[write] = data


def test_memory():
    from nibblecore.hdl.memory import Memory

    bench.run(Memory(20, 32), __file__, "memory", parameters={"width": 20, "depth": 32, "seed": 1})
