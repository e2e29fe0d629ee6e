import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.ltoaq.operands.operand_buffer import Banks

SHAPES = {"one_group": (4, 16, 4), "tiny": (8, 32, 4), "wide_bus": (16, 16, 8)}


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_random_traffic(dut):
    """Writes of groups and reads of any banks at once; a word that is being written is not read."""
    banks, words, block = (bench.parameters()[name] for name in ("banks", "words", "block"))
    rng = random.Random(random.getrandbits(32))
    width, address_bits = 5 * block, (words - 1).bit_length()
    model = Banks(block, width)
    for port in ("write_enable", "write_group", "write_address", "write_data", "read_enable", "read_address"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    shown: list[int | None] = [None] * banks
    for turn in range(3000):
        if turn % 700 == 699:
            # Contents and outputs outlive a reset, but nothing depends on that: it only must not disturb what follows.
            dut.write_enable.value, dut.read_enable.value = 0, 0
            await bench.reset(dut)
            shown = [None] * banks
        writing, group, target = rng.random() < 0.5, rng.randrange(banks // block), rng.randrange(words)
        data = rng.getrandbits(block * width)
        addresses = [rng.randrange(words) for _ in range(banks)]
        enable = [
            rng.random() < 0.5 and not (writing and bank // block == group and addresses[bank] == target) for bank in range(banks)
        ]
        dut.write_enable.value, dut.write_group.value, dut.write_address.value, dut.write_data.value = writing, group, target, data
        dut.read_enable.value, dut.read_address.value = bench.pack(enable, 1), bench.pack(addresses, address_bits)
        await ReadOnly()
        for bank, (word, expected) in enumerate(zip(bench.unpack(int(dut.read_data.value), width, banks), shown, strict=True)):
            assert expected is None or word == expected, f"bank {bank}, cycle {turn}"
        await RisingEdge(dut.clk)
        shown = [model.read(bank, addresses[bank]) if enable[bank] else shown[bank] for bank in range(banks)]
        if writing:
            model.write(group, target, data)
    assert len(model.words) == banks * words


@pytest.mark.parametrize("shape", SHAPES)
def test_buffer(shape):
    from nibblecore.hdl.ltoaq.operands.operand_buffer import OperandBuffer

    banks, words, block = SHAPES[shape]
    bench.run(
        OperandBuffer(banks, words, block), __file__, "operand_buffer", parameters={"banks": banks, "words": words, "block": block}
    )


def test_golden_groups():
    model = Banks(2, 4)
    model.write(1, 5, 0x21)
    assert model.words == {(2, 5): 1, (3, 5): 2} and model.read(0, 5) is None
