"""The script of docs/cambriconq-own-network.md does what the page says, and the page names what there is."""

import re
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibblecore.sim.compiler.compiler import Training
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "cambriconq-own-network.md").read_text()
MODEL, VERILOG, STATE, GRAPH = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def ran():
    """Names that the page's first block leaves behind."""
    names: dict[str, Any] = {}
    exec(compile(MODEL, "cambriconq-own-network.md", "exec"), names)
    return names


def test_the_network_learns(ran):
    losses = ran["losses"]
    assert sum(line != "" for line in MODEL.splitlines()) <= 27
    assert losses[0] > 1.5 and max(losses[-5:]) < 0.5 and 0.2 < ran["loss"] < 0.3
    assert 0.93 < ran["right"] < 0.97


def test_the_second_block_runs(ran):
    """With the functional model behind the driver's name; the Verilog has tests of its own."""
    names = ran | {"CambriconqAccelerator": partial(CambriconqAccelerator, transport="functional")}
    exec(compile(VERILOG, "cambriconq-own-network.md", "exec"), names)
    assert names["accelerator"] is not None and np.array_equal(names["losses"], ran["losses"])


def test_the_third_block_goes_on_with_the_same_bits(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(MODEL, "cambriconq-own-network.md", "exec"), names)
    exec(compile(STATE, "cambriconq-own-network.md", "exec"), names)
    assert np.array_equal(names["more"], ran["losses"][20:]) and (names["loss"], names["right"]) == (ran["loss"], ran["right"])


def test_the_graph_compiles(ran, capsys):
    names = dict(ran)
    exec(compile(GRAPH, "cambriconq-own-network.md", "exec"), names)
    assert "batch norm, sum with layer 1, ReLU, dense 4 with bias" in capsys.readouterr().out
    assert len(names["training"].step(1, 0).instructions) > 50


def test_the_page_names_what_there_is(ran):
    training = ran["training"]
    assert isinstance(training, Training)
    for name in re.findall(r"`(?:training)?\.(\w+)`", PAGE):
        assert hasattr(training, name), name
    parameters = {field.name for field in fields(Training)}
    for cell in re.findall(r"^\| (`[a-z, `]+`) \|", PAGE, re.M):
        assert set(re.findall(r"\w+", cell)) <= parameters, cell
