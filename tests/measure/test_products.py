"""Whole matrix products: what is printed of them adds up. That their results are right, the commands see themselves."""

import pytest
from nibblecore.sim import cli
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.measure import endtoend, product


def table(text):
    """A dict a row."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def number(cell):
    return float(cell.removesuffix(" cycles").replace(",", ""))


def test_endtoend(capsys):
    """Forward products of all ratios, then one of 8 bits and both gradients in 4 and 8; every product keeps the array as busy."""
    assert cli.main(["endtoend", "--config", "tiny", "--size", "16", "--ratios", "0", "0.3"]) == 0
    rows = table(capsys.readouterr().out)
    assert [(row["product"], row["bits"], row["outliers in"]) for row in rows] == [
        ("forward", "4", "0%"),
        ("forward", "4", "30%"),
        ("forward", "8", "3%"),
        *((f"{name} gradient", bits, "3%") for name in ("neuron", "weight") for bits in "48"),
    ]
    for row in rows:
        peak = {"4": 64, "8": 16}[row["bits"]]
        assert number(row["array busy"]) == 16**3 / peak <= number(row["cycles"])
        assert float(row["share of peak"]) == pytest.approx(16**3 / peak / number(row["cycles"]), abs=0.0006)
        assert number(row["array busy"]) + number(row["waits for operands"]) + number(row["for the output"]) <= number(
            row["cycles"]
        )


def test_product(capsys):
    """On 8 × 16 PEs of four 4-bit weights, so 128 MACs a cycle in 4 bits and 32 in 8."""
    assert cli.main(["product", "--config", "tiny", "--size", "32", "--bits", "4", "8"]) == 0
    rows = table(capsys.readouterr().out)
    assert [(row["bits"], row["MACs a cycle at most"]) for row in rows] == [("4", "128"), ("8", "32")]
    for row, peak in zip(rows, (128, 32), strict=True):
        cycles = number(row["cycles, products and stores"])
        assert 32**3 / peak <= number(row["lines enter the array in"]) <= cycles < number(row["with the loads before"])
        assert float(row["share of peak"].removesuffix("%")) == pytest.approx(100 * 32**3 / peak / cycles, abs=0.06)


@pytest.mark.parametrize("size", [1, 3, 9])
def test_a_product_that_ends_within_a_row_of_nbout(size, capsys):
    assert cli.main(["product", "--config", "tiny", "--size", str(size)]) == 0
    assert f"`tiny`: {size} × {size} × {size}; all of memory equals the functional model's." in capsys.readouterr().out


@pytest.mark.parametrize(("command", "module"), [("endtoend", endtoend), ("product", product)])
def test_a_wrong_result_fails(command, module, monkeypatch, capsys):
    def fail(*_, **__):
        raise Mismatch("a wrong result")

    monkeypatch.setattr(module, "measure", fail)
    assert cli.main([command, "--config", "tiny", "--size", "8"]) == 1
    assert "a wrong result" in capsys.readouterr().err
