import random
import subprocess
import sys
from itertools import product

import bench
import cocotb
import pytest
from axi_memory import OKAY, SLVERR, AxiLiteMaster
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.bus.register_map import Access, Field, Register, RegisterMap, markdown
from nibblecore.hdl.cambriconq import registers as cambriconq
from nibblecore.hdl.ltoaq import registers as ltoaq

SAMPLE = RegisterMap(
    "Sample",
    (
        Register("COUNT", 0x00, Access.R, "a number"),
        Register("MODE", 0x04, Access.RW, "gaps and reset values", (Field("low", 1, 3, reset=5), Field("high", 30, 31, reset=2))),
        Register("EVENTS", 0x0C, Access.RW1C, "some bits", (Field("first", 0, 0, reset=1), Field("rest", 4, 19))),
        Register("GO", 0x10, Access.W, "", (Field("which", 0, 7),)),
        Register("NUMBER", 0x40, Access.RW, "all bits"),
    ),
)
MAPS = {"sample": (SAMPLE, 8), "ltoaq": (ltoaq.REGISTERS, None), "cambriconq": (cambriconq.REGISTERS, None)}


class Model:
    """What the registers hold, and what an access should be answered."""

    def __init__(self, register_map):
        self.map = {register.offset: register for register in register_map}
        self.value = {register.offset: register.reset for register in register_map if register.access is not Access.R}

    def writable(self, address, strobe):
        return address in self.map and self.map[address].access is not Access.R and strobe == 0xF

    def write(self, address, data):
        register = self.map[address]
        if register.access is Access.RW1C:
            self.value[address] &= ~data
        else:
            self.value[address] = data & register.mask


async def start(dut):
    register_map, _ = MAPS[bench.parameters()["map"]]
    for register in register_map:
        if register.access is Access.R:
            getattr(dut, register.name.lower()).value = 0
        if register.access is Access.RW1C:
            getattr(dut, f"{register.name.lower()}_set").value = 0
    master = AxiLiteMaster(dut)
    await bench.start(dut)
    return register_map, master


def random_word(rng):
    return rng.choice([0, 0xFFFF_FFFF, rng.getrandbits(32), 1 << rng.randrange(32)])


def random_address(rng, dut, register_map):
    return rng.choice([rng.choice(register_map.registers).offset] * 6 + [rng.randrange(1 << len(dut.s_axi__araddr))])


def check_ports(dut, register_map, model):
    for register in register_map:
        if register.access is not Access.R:
            held = int(getattr(dut, register.name.lower()).value)
            assert held == model.value[register.offset], f"{register.name} is {held:#x}"


@cocotb.test()
async def bench_values_after_reset(dut):
    register_map, master = await start(dut)
    for register in register_map:
        if register.access is Access.RW:
            assert await master.read(register.offset) == register.reset
            await master.write(register.offset, ~register.reset & 0xFFFF_FFFF)
            assert await master.read(register.offset) == ~register.reset & register.mask
    await bench.reset(dut)
    await ReadOnly()
    check_ports(dut, register_map, Model(register_map))


@cocotb.test()
async def bench_writes_and_reads(dut):
    """Random accesses, address and data in either order, slow answers; whatever is not allowed changes nothing."""
    register_map, master = await start(dut)
    model = Model(register_map)
    rng = random.Random(1)
    for _ in range(1500):
        address, word = random_address(rng, dut, register_map), random_word(rng)
        if rng.random() < 0.5:
            strobe = rng.choice([0xF, 0xF, 0xF, rng.randrange(16)])
            delays = [rng.choice([0, 0, rng.randrange(6)]) for _ in range(3)]
            response = await master.write_response(
                address, word, strobe=strobe, address_delay=delays[0], data_delay=delays[1], ready_delay=delays[2]
            )
            allowed = model.writable(address, strobe)
            assert response == (OKAY if allowed else SLVERR), f"write {address:#x} strobe {strobe:04b}"
            if allowed:
                model.write(address, word)
        else:
            register = model.map.get(address)
            if register and register.access is Access.R:
                getattr(dut, register.name.lower()).value = word
            if register and register.access.readable:
                wanted = (word if register.access is Access.R else model.value[address], OKAY)
            else:
                wanted = (0, SLVERR)
            assert await master.read_response(address, ready_delay=rng.choice([0, 0, 3])) == wanted, f"read {address:#x}"
        await ReadOnly()
        check_ports(dut, register_map, model)
        await RisingEdge(dut.clk)


@cocotb.test()
async def bench_strobes(dut):
    """A W register's strobe is high once a good write, with the new value."""
    register_map, master = await start(dut)
    targets = [register for register in register_map if register.access is Access.W]
    seen = []

    async def watch():
        while True:
            await ReadOnly()
            for register in targets:
                if int(getattr(dut, f"{register.name.lower()}_strobe").value):
                    seen.append((register.offset, int(getattr(dut, register.name.lower()).value)))
            await RisingEdge(dut.clk)

    cocotb.start_soon(watch())
    rng = random.Random(2)
    wanted = []
    for _ in range(300):
        address, word, strobe = random_address(rng, dut, register_map), random_word(rng), rng.choice([0xF, 0xF, 0x7])
        await master.write_response(address, word, strobe=strobe, ready_delay=rng.randrange(4))
        for register in targets:
            if register.offset == address and strobe == 0xF:
                wanted.append((address, word & register.mask))
    assert seen == wanted and wanted


@cocotb.test()
async def bench_set_and_clear(dut):
    """Hardware sets bits at random moments while the host clears them: no event is lost, none appears from nowhere."""
    register_map, master = await start(dut)
    (register,) = (register for register in register_map if register.access is Access.RW1C)
    name = register.name.lower()
    rng = random.Random(3)
    held = register.reset
    pending = 0  # written, not yet seen to act
    sets = 0
    for _ in range(200):
        word = random_word(rng)
        pending = word
        writing = cocotb.start_soon(master.write_response(register.offset, word, ready_delay=rng.randrange(3)))
        acted = False
        while not writing.done():
            bits = rng.choice([0, 0, rng.getrandbits(32)])
            getattr(dut, f"{name}_set").value = bits
            await ReadOnly()
            value = int(getattr(dut, name).value)
            # The write acts in the first cycle of its answer; `sets` are the bits set in the cycle before.
            if int(dut.s_axi__bvalid.value) and not acted:
                held, acted = held & ~pending, True
            held = (held | sets) & register.mask
            assert value == held
            sets = bits
            await RisingEdge(dut.clk)
        assert acted


ACTS = 1
"""A write whose address and data are taken in cycle 0 acts at the end of this one; its answer is on offer from the next on."""


def offer(dut, address, word):
    """A write, or with no word a read, taken in this cycle."""
    if word is None:
        dut.s_axi__araddr.value, dut.s_axi__arvalid.value = address, 1
    else:
        dut.s_axi__awaddr.value, dut.s_axi__wdata.value, dut.s_axi__wstrb.value = address, word, 0xF
        dut.s_axi__awvalid.value = dut.s_axi__wvalid.value = 1


def withdraw(dut):
    dut.s_axi__awvalid.value = dut.s_axi__wvalid.value = dut.s_axi__arvalid.value = 0


@cocotb.test()
async def bench_set_in_every_cycle_round_a_clear(dut):
    """A bit set before the clear is cleared, one set in its cycle or after it stays, whatever was held."""
    register_map, _ = await start(dut)
    (register,) = (register for register in register_map if register.access is Access.RW1C)
    port, sets = getattr(dut, register.name.lower()), getattr(dut, f"{register.name.lower()}_set")
    dut.s_axi__bready.value = 1
    rng = random.Random(4)
    words = [*product((0, 0xFFFF_FFFF), repeat=3), *([rng.getrandbits(32) for _ in range(3)] for _ in range(30))]
    at_once = 0
    for cycle, (held, cleared, late) in product(range(5), words):
        expected = register.reset
        for now, (bits, word) in enumerate([(0, 0xFFFF_FFFF), *[(0, None)] * 3, (held, None)]):
            sets.value = bits
            if not now:
                offer(dut, register.offset, word)
            await RisingEdge(dut.clk)
            withdraw(dut)
        expected = held & register.mask
        for now in range(6):
            sets.value = late if now == cycle else 0
            if not now:
                offer(dut, register.offset, cleared)
            await ReadOnly()
            assert int(port.value) == expected, f"set in cycle {cycle}, wrong in cycle {now}"
            assert int(dut.s_axi__bvalid.value) == (now == ACTS + 1)
            at_once += now == cycle == ACTS and bool(held & cleared & late & register.mask)
            if now == ACTS:
                expected &= ~cleared
            expected |= int(sets.value) & register.mask
            await RisingEdge(dut.clk)
            withdraw(dut)
    assert at_once >= 2


@cocotb.test()
async def bench_read_in_every_cycle_round_a_write(dut):
    """Of the same register: taken until the write acts a read has the old value, from the next cycle on the new one."""
    register_map, master = await start(dut)
    targets = [register for register in register_map if register.access in (Access.RW, Access.RW1C)]
    met = dict.fromkeys((register.name for register in targets), 0)
    for register, cycle in product(targets, range(5)):
        if register.access is Access.RW1C:
            sets = getattr(dut, f"{register.name.lower()}_set")
            sets.value = register.mask
            await RisingEdge(dut.clk)
            sets.value = 0
            old, word, new = register.mask, 0xFFFF_FFFF, 0
        else:
            old, word = 0x5555_5555 & register.mask, 0xAAAA_AAAA | ~register.mask & 0xFFFF_FFFF
            new = word & register.mask
            await master.write(register.offset, old)
        assert old != new
        dut.s_axi__bready.value = dut.s_axi__rready.value = 1
        for now in range(8):
            if not now:
                offer(dut, register.offset, word)
            if now == cycle:
                offer(dut, register.offset, None)
            await ReadOnly()
            assert int(dut.s_axi__bvalid.value) == (now == ACTS + 1)
            assert int(dut.s_axi__rvalid.value) == (now == cycle + 1)
            if now == cycle + 1:
                assert int(dut.s_axi__rdata.value) == (old if cycle <= ACTS else new), f"{register.name} read in cycle {cycle}"
                met[register.name] += cycle == ACTS
            await RisingEdge(dut.clk)
            withdraw(dut)
        dut.s_axi__bready.value = dut.s_axi__rready.value = 0
    assert set(met.values()) == {1}


@cocotb.test()
async def bench_reads_have_the_value_of_their_cycle(dut):
    """Of an R register that changes in every cycle, the cycle in which the address is taken."""
    register_map, _ = await start(dut)
    rng = random.Random(6)
    for register in (register for register in register_map if register.access is Access.R):
        port = getattr(dut, register.name.lower())
        for cycle in range(3):
            shown = [rng.getrandbits(32) for _ in range(6)]
            for now, value in enumerate(shown):
                port.value, dut.s_axi__rready.value = value, 1
                if now == cycle:
                    offer(dut, register.offset, None)
                await ReadOnly()
                assert int(dut.s_axi__rvalid.value) == (now == cycle + 1)
                assert now != cycle + 1 or int(dut.s_axi__rdata.value) == shown[cycle], register.name
                await RisingEdge(dut.clk)
                withdraw(dut)


@cocotb.test()
async def bench_reads_and_writes_at_once(dut):
    register_map, master = await start(dut)
    target = [register for register in register_map if register.access is Access.RW][-1]
    await master.write(target.offset, 0)
    done = []

    async def reads():
        last = 0
        for _ in range(100):
            value = await master.read(target.offset)
            assert last <= value <= 100
            last = value
        done.append("reads")

    reader = cocotb.start_soon(reads())
    for number in range(1, 101):
        await master.write(target.offset, number)
    await reader
    assert done and await master.read(target.offset) == 100


@cocotb.test()
async def bench_latency(dut):
    register_map, _ = await start(dut)
    for port in ("awvalid", "wvalid", "arvalid", "bready", "rready"):
        getattr(dut, f"s_axi__{port}").value = 1
    address = next(register for register in register_map if register.access is Access.RW).offset
    dut.s_axi__awaddr.value = dut.s_axi__araddr.value = address
    answers, reads = [], []
    for cycle in range(30):
        await ReadOnly()
        answers += [cycle] * int(dut.s_axi__bvalid.value)
        reads += [cycle] * int(dut.s_axi__rvalid.value)
        await RisingEdge(dut.clk)
    assert answers[:3] == [2, 5, 8] and reads[:3] == [1, 3, 5]


@cocotb.test()
async def bench_reset_midflow(dut):
    register_map, master = await start(dut)
    rng = random.Random(5)
    target = [register for register in register_map if register.access is Access.RW][-1]
    for _ in range(20):
        held = rng.choice(["aw", "w", "ar", "b", "r"])
        dut.s_axi__awaddr.value = dut.s_axi__araddr.value = target.offset
        dut.s_axi__wstrb.value, dut.s_axi__wdata.value = 0xF, 0xDEAD_BEEF
        dut.s_axi__awvalid.value, dut.s_axi__wvalid.value = int(held in ("aw", "b")), int(held in ("w", "b"))
        dut.s_axi__arvalid.value = int(held in ("ar", "r"))
        for _ in range(3):
            await RisingEdge(dut.clk)
        for port in ("awvalid", "wvalid", "arvalid"):
            getattr(dut, f"s_axi__{port}").value = 0
        await bench.reset(dut)
        await ReadOnly()
        assert not int(dut.s_axi__bvalid.value) and not int(dut.s_axi__rvalid.value)
        check_ports(dut, register_map, Model(register_map))
        await RisingEdge(dut.clk)
        word = rng.getrandbits(32) & target.mask
        await master.write(target.offset, word)
        assert await master.read(target.offset) == word


@pytest.mark.parametrize("name", MAPS)
def test_registers(name):
    from nibblecore.hdl.bus.registers import AxiLiteRegisters

    bench.run(AxiLiteRegisters(*MAPS[name]), __file__, f"registers_{name}", parameters={"map": name})


def test_fields():
    mode = SAMPLE["MODE"]
    assert mode.mask == 0xC000_000E and mode.reset == 0x8000_000A
    assert mode.pack(low=3, high=1) == 0x4000_0006
    assert mode.unpack(0x4000_0006) == {"low": 3, "high": 1}
    assert SAMPLE["NUMBER"].mask == 0xFFFF_FFFF and SAMPLE.address_bits == 7
    with pytest.raises(ValueError, match="does not fit"):
        mode.pack(low=8)
    with pytest.raises(KeyError):
        SAMPLE["MOOD"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Field("Upper", 0, 0),
        lambda: Field("wide", 3, 32),
        lambda: Field("reset", 0, 1, reset=4),
        lambda: Register("lower", 0, Access.R),
        lambda: Register("ODD", 2, Access.R),
        lambda: Register("OVERLAP", 0, Access.RW, "", (Field("a", 0, 4), Field("b", 4, 5))),
        lambda: Register("TWICE", 0, Access.RW, "", (Field("a", 0, 0), Field("a", 4, 5))),
        lambda: Register("NO_RESET", 0, Access.R, "", (Field("a", 0, 0, reset=1),)),
        lambda: RegisterMap("Clash", (Register("A", 0, Access.R), Register("B", 0, Access.R))),
        lambda: RegisterMap("Name", (Register("A", 0, Access.R), Register("A", 4, Access.R))),
        lambda: RegisterMap("Empty", ()),
    ],
)
def test_bad_descriptions(make):
    with pytest.raises(ValueError):
        make()


def test_port_names_must_differ():
    from nibblecore.hdl.bus.registers import AxiLiteRegisters

    clash = RegisterMap("Clash", (Register("GO", 0, Access.W), Register("GO_STROBE", 4, Access.R)))
    with pytest.raises(ValueError, match="clash"):
        AxiLiteRegisters(clash)
    with pytest.raises(ValueError, match="reach"):
        AxiLiteRegisters(SAMPLE, 6)


def test_markdown_names_everything():
    text = markdown(SAMPLE, "command")
    for register in SAMPLE:
        assert f"| 0x{register.offset:02X} | {register.name} | {register.access.value} |" in text
    assert "| 31:30 | `high` |" in text and "| 0 | `first` |" in text


def test_ltoaq_page_is_in_step():
    assert (bench.ROOT / "docs" / "ltoaq-registers.md").read_text() == ltoaq.page(), "regenerate docs/ltoaq-registers.md"


def test_ltoaq_agrees_with_the_manual():
    """The table of docs/ltoaq.md has the same offsets, names and accesses."""
    rows = [line.split("|")[1:4] for line in (bench.ROOT / "docs" / "ltoaq.md").read_text().splitlines() if line.startswith("| 0x")]
    assert [tuple(cell.strip() for cell in row) for row in rows] == [
        (f"0x{register.offset:02X}", register.name, register.access.value) for register in ltoaq.REGISTERS
    ]


def test_ltoaq_configuration_words():
    from nibblecore.hdl.config import FPGA, PRESETS

    assert ltoaq.config_words(FPGA) == (0x0808_0808, 0x2604_0400)
    for config in PRESETS.values():
        ltoaq.config_words(config)


def test_descriptions_need_no_amaranth():
    code = "import sys, nibblecore.hdl.ltoaq.registers; assert not any(name.startswith('amaranth') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
