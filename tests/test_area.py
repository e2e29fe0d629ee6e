import gzip
import re

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import PRESETS, TINY
from nibblecore.sim import area
from nibblecore.sim.blocks import blocks_of, build, numbers

TABLE = '{ index_1 ("0.01, 0.1") ; index_2 ("0.5, 5.0") ; values ("0.01, 0.05", "0.02, 0.06") ; }'
TABLES = " ".join(f"{name} (table) {TABLE}" for name in ("cell_rise", "cell_fall", "rise_transition", "fall_transition"))


def gate(name, area, function):
    pins = sorted(set(function) & set("AB"))
    inputs = " ".join(f"pin ({pin}) {{ direction : input ; capacitance : 1.0 ; }}" for pin in pins)
    arcs = " ".join(f'timing () {{ related_pin : "{pin}" ; timing_sense : negative_unate ; {TABLES} }}' for pin in pins)
    return f'cell ({name}) {{ area : {area} ; {inputs} pin (Y) {{ direction : output ; function : "{function}" ; {arcs} }} }}'


# As small as ABC will take.
LIBERTY = f"""library (small) {{
  time_unit : "1ns" ; capacitive_load_unit (1, ff) ;
  lu_table_template (table) {{ variable_1 : input_net_transition ; variable_2 : total_output_net_capacitance ;
    index_1 ("0.01, 0.1") ; index_2 ("0.5, 5.0") ; }}
  {gate("INV", 1.0, "!A")}
  {gate("BUF", 2.0, "A")}
  {gate("NAND2", 2.0, "!(A&B)")}
  {gate("NOR2", 2.0, "!(A|B)")}
  cell (DFF) {{ area : 8.0 ; ff (IQ, IQN) {{ clocked_on : "CK" ; next_state : "D" ; }}
    pin (D) {{ direction : input ; }} pin (CK) {{ direction : input ; clock : true ; }}
    pin (Q) {{ direction : output ; function : "IQ" ; }} }}
}}
"""


@pytest.fixture
def liberty(tmp_path):
    path = tmp_path / "small45.lib"
    path.write_text(LIBERTY)
    return area.Liberty.read(path)


def test_liberty_is_read(liberty, tmp_path):
    assert liberty.areas == {"INV": 1.0, "BUF": 2.0, "NAND2": 2.0, "NOR2": 2.0, "DFF": 8.0}
    assert liberty.sequential == {"DFF"}
    assert liberty.nand2 == 2.0
    packed = tmp_path / "packed.lib.gz"
    packed.write_bytes(gzip.compress(LIBERTY.encode()))
    assert area.Liberty.read(packed).areas == liberty.areas


def test_unreadable_liberty(tmp_path):
    with pytest.raises(SystemExit, match="no Liberty file"):
        area.Liberty.read(tmp_path / "none.lib")
    (tmp_path / "empty.lib").write_text("library (none) {}")
    with pytest.raises(SystemExit, match="is it a Liberty file"):
        area.Liberty.read(tmp_path / "empty.lib")


def test_array_is_its_pes_and_its_drain():
    """Shared modules are multiplied: 4 × 4 PEs, four columns with one drain register of 33 bits, one validity bit."""
    pe = area.measure(build("ltoaq.pe", TINY), "ltoaq.pe")
    array = area.measure(build("ltoaq.array", TINY), "ltoaq.array")
    assert pe.flip_flops == 24 + 24 + 1 + 32 + 1
    assert array.flip_flops == 16 * pe.flip_flops + 4 * 33 + 1
    assert array.cells >= 16 * pe.cells
    assert array.modules == 3


def test_liberty_areas_add_up(liberty):
    from nibblecore.hdl.arith.rounding_shift import RoundingShift

    measured = area.measure(RoundingShift(4, 3), "shift", liberty=liberty)
    assert measured.flip_flops == 0
    assert measured.square_microns == 2.0 * measured.nand2 > 0
    assert measured.path_ps > 0


def test_memories_are_bits():
    from nibblecore.hdl.memory import Memory

    class Pair(wiring.Component):
        write: In(1)
        address: In(5)
        data: In(20)
        o: Out(20)

        def elaborate(self, platform):
            m = Module()
            words = []
            for number in range(2):
                m.submodules[f"memory{number}"] = memory = Memory(20, 32)
                m.d.comb += [memory.write_enable.eq(self.write), memory.write_address.eq(self.address), memory.read_enable.eq(1),
                             memory.write_data.eq(self.data), memory.read_address.eq(self.address + number)]  # fmt: skip
                words.append(memory.read_data)
            m.d.comb += self.o.eq(words[0] ^ words[1])
            return m

    measured = area.measure(Pair(), "pair")
    assert measured.memory_bits == 2 * 20 * 32
    assert measured.flip_flops == 0


@pytest.mark.parametrize("name", PRESETS)
def test_every_block_is_built(name):
    """By its own constructor, for this configuration."""
    for block in blocks_of(PRESETS[name]):
        component = build(block, PRESETS[name])
        component._MustUse__silence = True
        assert isinstance(component, wiring.Component)
        assert type(component).__module__ == f"nibblecore.hdl.{block}"
        assert getattr(component, "config", PRESETS[name]) is PRESETS[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny", {"ltoaq.pe": 16, "ltoaq.array": 1, "ltoaq.operand": 8, "ltoaq.quantizer": 4, "ltoaq.top": 1}),
        ("tiny_fused", {"arith.nibble_mac": 32, "ltoaq.cluster": 16, "ltoaq.quantizer": 4, "bus.reader": 1}),
    ],
)
def test_blocks_are_counted(name, expected):
    counted = numbers(PRESETS[name])
    assert counted.keys() == blocks_of(PRESETS[name]).keys()
    assert counted.items() >= expected.items()


def test_table(capsys, tmp_path):
    target = tmp_path / "out" / "area.md"
    assert area.main(["--block", "ltoaq.pe", "--node", "28", "--markdown", str(target)]) == 0
    text = capsys.readouterr().out
    assert text == target.read_text()
    assert re.search(r"^\| ltoaq\.pe \| [\d,]+ \| 82 \|", text, re.M)
    assert "| one PE of 1024 | 514 | 514 | 0.10 |" in text


def test_shares(capsys):
    """Four quantizers and eight operand decoders, beside 4 × 4 PEs."""
    blocks = ["ltoaq.array", "ltoaq.quantizer", "ltoaq.operand"]
    assert area.main([word for block in blocks for word in ("--block", block)]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "| ltoaq." in line]
    nand2 = {row[0]: float(row[3].replace(",", "")) for row in rows}
    for (block, *_, number, share), expected in zip(rows, (1, 4, 8), strict=True):
        assert int(number) == expected
        assert float(share) == pytest.approx(100 * expected * nand2[block] / nand2["ltoaq.array"], rel=1e-3)


def test_block_of_another_scheme_is_refused(capsys):
    with pytest.raises(SystemExit):
        area.main(["--config", "tiny", "--block", "ltoaq.cluster"])
    assert "has no ltoaq.cluster" in capsys.readouterr().err
