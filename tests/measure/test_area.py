import gzip
import re
from collections import defaultdict
from pathlib import Path

import pytest
from amaranth import Module
from amaranth.hdl import Fragment, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.boards.board import Board
from nibblecore.hdl.boards.targets import TARGETS
from nibblecore.hdl.config import CAMBRICONQ, FPGA, PAPER, TINY
from nibblecore.sim import cli
from nibblecore.sim.machines import MACHINES, accelerator, config_of
from nibblecore.sim.measure import area
from nibblecore.sim.measure.blocks import BOARD_BLOCKS, blocks_of, build, numbers
from nibblecore.sim.refusal import Refusal

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
    with pytest.raises(Refusal, match="no Liberty file: No such file"):
        area.Liberty.read(tmp_path / "none.lib")
    (tmp_path / "empty.lib").write_text("library (none) {}")
    with pytest.raises(Refusal, match="is it a Liberty file"):
        area.Liberty.read(tmp_path / "empty.lib")
    for name, content in (
        ("binary.lib", b"\xff"),
        ("plain.lib.gz", LIBERTY.encode()),
        ("cut.lib.gz", gzip.compress(LIBERTY.encode())[:99]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Refusal, match="no Liberty file"):
            area.Liberty.read(tmp_path / name)
    (tmp_path / "inverters.lib").write_text(f"library (small) {{\n {gate('INV', 1.0, '!A')} }}")
    with pytest.raises(Refusal, match="no cell called NAND2"):
        area.Liberty.read(tmp_path / "inverters.lib")


def test_array_is_its_pes_and_its_drain():
    """Shared modules are multiplied: 4 × 4 PEs, four columns with one drain register of 33 bits, one validity bit."""
    pe = area.measure(build("ltoaq.array.wide_pe", TINY), "ltoaq.array.wide_pe")
    array = area.measure(build("ltoaq.array.wide_array", TINY), "ltoaq.array.wide_array")
    assert pe.flip_flops == 24 + 24 + 1 + 32 + 1
    assert array.flip_flops == 16 * pe.flip_flops + 4 * 33 + 1
    assert array.cells >= 16 * pe.cells
    assert array.modules == 3


def test_liberty_areas_add_up(liberty):
    from nibblecore.hdl.cambriconq.buffers.requantizer import Requantizer

    measured = area.measure(Requantizer(), "requantizer", liberty=liberty)
    assert measured.flip_flops == 0
    assert measured.square_microns == 2.0 * measured.nand2 > 0
    assert measured.path_ps is not None and measured.path_ps > 0


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
                m.d.comb += [
                    memory.write_enable.eq(self.write),
                    memory.write_address.eq(self.address),
                    memory.read_enable.eq(1),
                    memory.write_data.eq(self.data),
                    memory.read_address.eq(self.address + number),
                ]
                words.append(memory.read_data)
            m.d.comb += self.o.eq(words[0] ^ words[1])
            return m

    measured = area.measure(Pair(), "pair")
    assert measured.memory_bits == 2 * 20 * 32
    assert measured.flip_flops == 0


@pytest.mark.parametrize(("machine", "name"), [(machine, name) for machine in MACHINES for name in MACHINES[machine]])
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_every_block_is_built(machine, name):
    """By its own constructor, for this configuration."""
    config = config_of(machine, name)
    for block in blocks_of(config):
        component = build(block, config)
        component._MustUse__silence = True
        assert isinstance(component, wiring.Component)
        assert type(component).__module__ == f"nibblecore.hdl.{block}"


def sizes(component):
    """Ports and sizes: what tells two components of a class apart."""
    ports = [(path, member.flow, len(Value.cast(value))) for path, member, value in component.signature.flatten(component)]
    return ports, {name: value for name, value in vars(component).items() if isinstance(value, int) and name[0] != "_"}


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_blocks_are_those_of_the_machine():
    """What is measured of Cambricon-Q has the ports and sizes that it has there."""
    config = CAMBRICONQ["tiny"]
    found, todo = defaultdict(list), [Fragment.get(accelerator(config), None)]
    while todo:
        fragment = todo.pop()
        for part in fragment.origins or ():
            if isinstance(part, wiring.Component):
                found[type(part)].append(sizes(part))
        todo += [sub for sub, _, _ in fragment.subfragments]
    missing = []
    for block in blocks_of(config):
        component = build(block, config)
        component._MustUse__silence = True
        if type(component) not in found:
            missing.append(block)
        else:
            assert sizes(component) in found[type(component)], block
    assert not missing


@pytest.mark.parametrize(
    ("machine", "name", "expected"),
    [
        (
            "ltoaq",
            "tiny",
            {
                "ltoaq.array.wide_pe": 16,
                "ltoaq.array.wide_array": 1,
                "ltoaq.operands.operand_decoder": 8,
                "ltoaq.output.quantizer": 4,
                "ltoaq.top": 1,
            },
        ),
        ("ltoaq", "tiny_fused", {"arith.nibble_mac": 32, "ltoaq.fused.cluster": 16, "ltoaq.output.quantizer": 4, "bus.reader": 1}),
        (
            "cambriconq",
            "tiny",
            {
                "cambriconq.matrix.pe": 128,
                "cambriconq.matrix.accumulator": 8,
                "cambriconq.matrix.dequantizer": 2,
                "cambriconq.quantize.squ": 2,
                "cambriconq.buffers.qbc": 2,
                "cambriconq.buffers.tagged_memory": 2,
                "cambriconq.update.ndpo": 1,
                "cambriconq.top": 1,
            },
        ),
    ],
)
def test_blocks_are_counted(machine, name, expected):
    config = config_of(machine, name)
    counted = numbers(config)
    assert counted.keys() == blocks_of(config).keys()
    assert counted.items() >= expected.items()


def beside_the_paper(config, microns, counts, node):
    """Rows of the comparison with the paper's table that is printed for these areas."""
    library = area.Liberty(path=Path("cells.lib"), areas={}, sequential=frozenset(), nand2=1.0)
    areas = [
        area.Area(block=block, modules=1, cells=1, flip_flops=0, memory_bits=0, nand2=size, square_microns=size, path_ps=1.0)
        for block, size in microns.items()
    ]
    text = area.report(areas, liberty=library, recipe="standard", config=config, node=node, counts=counts)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.partition("Table ")[2].splitlines() if "|" in line]


def table_ii(config):
    microns = {"ltoaq.array.wide_array": 2e6, "ltoaq.output.quantizer": 2e3, "ltoaq.operands.operand_decoder": 250}
    counts = {"ltoaq.array.wide_array": 1, "ltoaq.output.quantizer": 32, "ltoaq.operands.operand_decoder": 64}
    return beside_the_paper(config, microns, counts, 56)[2:]


def test_table_ii():
    """At twice the paper's feature size its areas are four times as large."""
    assert table_ii(PAPER) == [
        ["decoder", "64 ltoaq.operands.operand_decoder", "16,000", "0.80", "17,676", "0.84"],
        ["FXP2OAQ", "32 ltoaq.output.quantizer", "64,000", "3.20", "6,644", "0.32"],
        ["PE array", "1 ltoaq.array.wide_array", "2,000,000", "100.00", "2,105,800", "100.00"],
        ["a PE of the array", "", "1,953", "0.10", "2,056", "0.10"],
    ]


def test_table_ii_is_of_the_papers_size():
    assert table_ii(FPGA) == []


def table_vii(config):
    """By their first two cells, for made-up areas at 90 nm."""
    microns = {
        "cambriconq.matrix.pe_array": 1e6,
        "cambriconq.matrix.accumulator": 1e3,
        "cambriconq.matrix.dequantizer": 2e3,
        "arith.fp32_add": 3e3,
        "cambriconq.vector.sfu": 5e4,
        "cambriconq.quantize.squ": 6e4,
        "cambriconq.buffers.qbc": 7e4,
    }
    counts = {
        "cambriconq.matrix.pe_array": 1,
        "cambriconq.matrix.accumulator": 64,
        "cambriconq.matrix.dequantizer": 16,
        "arith.fp32_add": 21,
        "cambriconq.vector.sfu": 1,
        "cambriconq.quantize.squ": 2,
        "cambriconq.update.ndpo": 1,
        "cambriconq.buffers.qbc": 2,
    }
    return {tuple(row[:2]): row[2:] for row in beside_the_paper(config, microns, counts, 90)}


def test_table_vii():
    """16 adders behind 64 accumulators, whatever else in the machine adds; two QBCs; nothing of what was not measured."""
    rows = table_vii(CAMBRICONQ["paper"])
    parts = [
        "1 cambriconq.matrix.pe_array",
        "64 cambriconq.matrix.accumulator",
        "16 cambriconq.matrix.dequantizer",
        "16 arith.fp32_add",
        "1 cambriconq.vector.sfu",
    ]
    assert rows["functional units", ""] == ["1.194", "8.44"]
    assert [rows["", part] for part in parts] == [["1.000", ""], ["0.064", ""], ["0.032", ""], ["0.048", ""], ["0.050", ""]]
    assert rows["SQU", "2 cambriconq.quantize.squ"] == ["0.120", "1.68"]
    assert rows["QBC", "2 cambriconq.buffers.qbc"] == ["0.140", "0.36"]
    assert not [row for row in rows if row[0] == "NDPO"]


def test_table_vii_is_of_the_papers_size():
    assert table_vii(CAMBRICONQ["tiny"]) == {}


def test_table(capsys, tmp_path):
    target = tmp_path / "out" / "area.md"
    assert cli.main(["area", "--block", "ltoaq.array.wide_pe", "--markdown", str(target)]) == 0
    text = capsys.readouterr().out
    assert text == target.read_text()
    assert "| block | cells | flip-flops | NAND2 eq. | memory, bits |" in text
    assert re.search(r"^\| ltoaq\.array\.wide_pe \| [\d,]+ \| 82 \| [\d,]+ \|  \|$", text, re.M)


def test_table_of_a_library(capsys, liberty):
    """Areas in µm² instead of NAND2, and paths."""
    assert cli.main(["area", "--block", "ltoaq.array.wide_pe", "--liberty", str(liberty.path)]) == 0
    text = capsys.readouterr().out
    assert "| block | cells | flip-flops | µm² | path, ps | memory, bits |" in text
    assert re.search(r"^\| ltoaq\.array\.wide_pe \| [\d,]+ \| 82 \| [\d,]+ \| [\d,]+ \|  \|$", text, re.M)


def test_several_configurations_and_recipes(capsys, liberty):
    """A row each, those of a block together; no share of one array; only the notes that the rows need."""
    blocks = ["ltoaq.operands.operand_setup", "ltoaq.operands.residual_clip"]
    words = ["--config", "tiny", "paper", "--recipe", "standard", "fast", "--liberty", str(liberty.path)]
    assert cli.main(["area", "--block", *blocks, *words]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Configurations `ltoaq_tiny`, `ltoaq_paper`; small45.lib, ABC recipes “standard”, “fast”.\n")
    assert "\n| block | configuration | recipe | cells | flip-flops | µm² | path, ps | memory, bits |\n" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "| ltoaq." in line]
    assert [row[:3] for row in rows] == [
        [block, f"`ltoaq_{config}`", recipe] for block in blocks for config in ("tiny", "paper") for recipe in ("standard", "fast")
    ]
    clip = {(row[1], row[2]): float(row[5].replace(",", "")) for row in rows if row[0] == blocks[1]}
    assert clip["`ltoaq_paper`", "standard"] > 2 * clip["`ltoaq_tiny`", "standard"]
    assert "Memories" not in text and "PE array" not in text


def test_one_recipe_of_several_configurations(capsys):
    blocks = ["ltoaq.array.wide_pe", "ltoaq.operands.decoder"]
    assert cli.main(["area", "CONFIG=paper paper_eight", f"BLOCK={' '.join(blocks)}"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^\| ltoaq\.array\.wide_pe \| `ltoaq_paper` \| [\d,]+ \| 82 \|", text, re.M)
    assert re.search(r"^\| ltoaq\.array\.wide_pe \| `ltoaq_paper_eight` \| [\d,]+ \| 130 \|", text, re.M)
    assert "Memories" in text and "recipe" not in text and "PE array" not in text


def test_shares(capsys):
    """Four quantizers and eight operand decoders, beside 4 × 4 PEs."""
    blocks = ["ltoaq.array.wide_array", "ltoaq.output.quantizer", "ltoaq.operands.operand_decoder"]
    assert cli.main(["area", "--block", *blocks]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "| ltoaq." in line]
    nand2 = {row[0]: float(row[3].replace(",", "")) for row in rows}
    for (block, *_, number, share), expected in zip(rows, (1, 4, 8), strict=True):
        assert int(number) == expected
        array = nand2["ltoaq.array.wide_array"]
        # The table rounds gates to whole ones and shares to hundredths.
        low, high = (100 * expected * (nand2[block] + half) / (array - half) for half in (-0.5, 0.5))
        assert low - 0.005 <= float(share) <= high + 0.005


def fpga_rows(capsys, *words):
    """Of the table of `nibblecore area --device ecp5`, its columns first."""
    assert cli.main(["area", "DEVICE=ecp5", *words]) == 0
    text = capsys.readouterr().out
    assert "\nA carry counts as two logic cells, a LUT memory, of 16 × 4 bits, as six.\n" in text
    return text, [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:2] == "| " and "---" not in line
    ]


def test_cells_of_an_fpga(capsys, tmp_path):
    """A PE has two multipliers, as on boards, though `tiny` does not pair its products; half a memory of 32 KB is eight block RAMs."""
    blocks = ["ltoaq.array.wide_pe", "ltoaq.array.pair_packer", "boards.block_memory"]
    text, (columns, pe, packer, memory) = fpga_rows(capsys, f"BLOCK={' '.join(blocks)}", "--markdown", str(tmp_path / "cells.md"))
    assert text == (tmp_path / "cells.md").read_text()
    assert text.startswith("Configuration `ltoaq_tiny`, as on boards; ECP5, Yosys’ `synth_ecp5`.\n")
    assert columns == ["block", "LUT4", "carries", "LUT memories", "logic cells", "flip-flops", "multipliers", "block RAMs"]
    assert [row[0] for row in (pe, packer, memory)] == blocks
    assert pe[3] == "" and int(pe[1]) + 2 * int(pe[2]) == int(pe[4]) and pe[5:] == ["94", "2", ""]
    assert packer[5:] == ["", "", ""] and memory[6:] == ["", "128"]


def test_cells_of_several_configurations(capsys):
    """A PE of eight lanes cannot be paired; the controller of an SDRAM is the same beside every machine."""
    blocks = ["ltoaq.array.wide_pe", "boards.sdram_controller"]
    text, (columns, *rows) = fpga_rows(capsys, "CONFIG=tiny paper_eight", f"BLOCK={' '.join(blocks)}")
    assert text.startswith("Configurations `ltoaq_tiny`, `ltoaq_paper_eight`, as on boards; ")
    assert columns[:2] == ["block", "configuration"]
    configs = ["`ltoaq_tiny`", "`ltoaq_paper_eight`"]
    assert [row[:2] for row in rows] == [[block, config] for block in blocks for config in configs]
    assert [row[7] for row in rows] == ["2", "8", "", ""] and rows[2][2:] == rows[3][2:]


@pytest.mark.parametrize("name", BOARD_BLOCKS)
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_blocks_are_those_of_a_board(name):
    """What is measured of a board has the ports and sizes that it has on `ulx3s`, or in SDRAM on `ulx3s_sdram`."""
    target = TARGETS["ulx3s_sdram" if "sdram" in name else "ulx3s"]
    board = Board(TINY, memory_bytes=target.memory_bytes, clock_hz=target.clock_hz, baud=target.baud, sdram=target.timed_sdram)
    found, todo = [], [Fragment.get(board, None)]
    component = build(name, TINY)
    component._MustUse__silence = True
    while todo:
        fragment = todo.pop()
        found += [sizes(part) for part in fragment.origins or () if type(part) is type(component)]
        todo += [sub for sub, _, _ in fragment.subfragments]
    assert found == [sizes(component)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["CONFIG=tiny", "BLOCK=ltoaq.fused.cluster"], "BLOCK=ltoaq.fused.cluster: ltoaq_tiny has no ltoaq.fused.cluster; it has"),
        (
            ["--machine", "cambriconq", "--block", "ltoaq.array.wide_pe", "--block", "cambriconq.top"],
            "--block ltoaq.array.wide_pe --block cambriconq.top: cambriconq_tiny has no ltoaq.array.wide_pe; it has",
        ),
        (
            ["--machine", "cambriconq", "--config", "tiny_bus", "--block", "cambriconq.update.ndp_engine"],
            "--block cambriconq.update.ndp_engine: cambriconq_tiny_bus has no cambriconq.update.ndp_engine",
        ),
        (["LIBERTY=none.lib"], "LIBERTY=none.lib: no Liberty file: No such file or directory"),
        (
            ["--config", "tiny", "tiny_fused", "--block", "ltoaq.array.wide_pe"],
            "--block ltoaq.array.wide_pe: ltoaq_tiny_fused has no ltoaq.array.wide_pe; it has",
        ),
        (["--recipe", "standard", "fast"], "--recipe standard fast: only a cell library is mapped in several ways: LIBERTY="),
    ],
)
def test_block_of_another_machine_is_refused(arguments, reason, capsys):
    assert cli.main(["area", *arguments]) == 2
    assert capsys.readouterr().err.startswith(reason)
