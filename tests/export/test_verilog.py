"""What `nibblecore verilog` writes: two machines in one design, files that name each other, headers, AXI IDs."""

import json
import re
from dataclasses import replace

import pytest
import yaml
from nibblecore.hdl.config import CAMBRICONQ, TINY, fused
from nibblecore.sim import verilog
from nibblecore.sim.export import origin
from nibblecore.sim.verilog import LintError, lint, write

PREFIXES = {"left_": replace(TINY, id_bits=4), "right_": fused(TINY)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verilog")
    return {prefix: write(config, folder, prefix=prefix) for prefix, config in PREFIXES.items()}


def lint_together(folder, sources):
    """Lint a module that has one of each, inputs at 0."""
    lines = ["module both;"]
    for source in sources:
        ports = json.loads(source.with_suffix(".json").read_text())["ports"]
        connections = (
            f".{port['name']}({port['width']}'d0)" if port["direction"] == "input" else f".{port['name']}()" for port in ports
        )
        lines.append(f"  {source.stem} {source.stem}_i ({', '.join(connections)});")
    (folder / "both.v").write_text("\n".join([*lines, "endmodule", ""]))
    lint(folder / "both.v", *sources)


def modules(source):
    return re.findall(r"^module (\w+)", source.read_text(), re.M)


def test_two_machines_in_one_design(tmp_path, written):
    left, right = written.values()
    assert not set(modules(left)) & set(modules(right))
    for prefix, source in written.items():
        assert source.stem.startswith(prefix) and all(module.startswith(prefix) for module in modules(source))
    lint_together(tmp_path, [left, right])
    # What the prefix is for: both machines have memories of one size.
    plain = tmp_path / right.name
    plain.write_text(right.read_text().replace("right_memory_", "left_memory_"))
    plain.with_suffix(".json").write_text(right.with_suffix(".json").read_text())
    with pytest.raises(LintError, match="MODDUP"):
        lint_together(tmp_path, [left, plain])


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(verilog, "emit_verilog", lambda *_, **__: pytest.fail("worked in vain"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        write(TINY, tmp_path / "file" / "folder")


def test_core_file_names_what_is_there(written):
    for prefix, source in written.items():
        core = source.with_suffix(".core")
        assert core.read_text().startswith("CAPI=2:\n")
        found = yaml.safe_load(core.read_text())
        files = [file for fileset in found["filesets"].values() for file in fileset["files"]]
        assert sorted(files) == sorted(f"{source.stem}{ending}" for ending in (".v", ".h", ".rdl", ".json"))
        assert all((source.parent / file).is_file() for file in files)
        assert re.fullmatch(rf"nibblecore:accelerator:{prefix}\w+:[\d.]+", found["name"])
        for target in found["targets"].values():
            assert target["toplevel"] == source.stem and set(target["filesets"]) <= found["filesets"].keys()
        assert found["targets"]["default"]["filesets"][0] == "rtl" == found["targets"]["lint"]["filesets"][0]


def test_heads(written, monkeypatch):
    for prefix, source in written.items():
        for ending in ("v", "h", "rdl", "core"):
            head = source.with_suffix(f".{ending}").read_text()[:600]
            assert "SPDX-License-Identifier: Apache-2.0" in head and f"{source.stem}.{ending}: LT-OAQ" in head
            assert "rows 4, cols" in head and f"outliers {PREFIXES[prefix].outliers}" in head
            assert re.search(r"nibblecore \d+\.\d+\.\d+", head)
    monkeypatch.setattr(origin, "commit", lambda: "")
    assert "commit" not in "".join(origin.origin(TINY, "x.v", "Verilog"))
    monkeypatch.setattr(origin, "commit", lambda: "0123456789ab-dirty")
    assert ", commit 0123456789ab-dirty;" in "".join(origin.origin(TINY, "x.v", "Verilog"))


def test_every_module_says_what_it_is(written):
    for source in written.values():
        text = source.read_text()
        assert len(re.findall(r"^// .*\.\nmodule ", text, re.M)) == len(modules(source))
    left = written["left_"].read_text()
    assert "// The machine of docs/ltoaq.md.\nmodule left_ltoaq_tiny(" in left
    assert (
        "\n// One write port, one synchronous read port, no initial contents, no write-to-read bypass.\nmodule left_memory_" in left
    )


def test_names_of_ports_and_nets_come_from_the_source(written):
    for source in written.values():
        declared = re.findall(r"^  (?:input|output|wire|reg)\b[^;]*?\b(\w+)(?: = [^;]*)?;", source.read_text(), re.M)
        assert len(declared) > 1000
        assert not [name for name in declared if re.fullmatch(r"port_\d+_\d+|_?signal(_\d+)?", name)]


def test_ids_are_zero_and_as_wide_as_asked(written):
    left, right = (source.read_text() for source in written.values())
    top = left[left.index("module left_ltoaq_tiny(") :]
    for name, direction in (("arid", "output"), ("awid", "output"), ("rid", "input"), ("bid", "input")):
        assert f"  {direction} [3:0] m_axi__{name};" in top
        assert f"m_axi__{name}" not in right
    assert all(f"assign m_axi__{name} = 4'h0;" in top for name in ("arid", "awid"))
    for config in (TINY, CAMBRICONQ["tiny"]):
        with pytest.raises(ValueError, match="id_bits must be at most 32"):
            replace(config, id_bits=33)
