import pytest
from nibblecore.sim import cli
from nibblecore.sim.measure import utilization


@pytest.mark.parametrize("ratio", [0, 0.1])
def test_model_gives_the_figure_of_the_verilog(ratio):
    # Short passes, so that draining results hold up clusters as well.
    measured, model = utilization.measure_fused(4, 4, 2, words=8, passes=12, ratio=ratio)
    assert measured == model
    assert 0.3 < measured <= 1


def test_no_array_passes_the_bound():
    measured, _ = utilization.measure_fused(4, 4, 2, words=64, passes=4, ratio=0.05)
    word = 1 - 0.95**4
    assert 0.5 < measured < 1.05 / (1 + word) ** 2


@pytest.mark.parametrize("ratio", [0, 0.3])
def test_wide_array_is_full(ratio):
    """Twelve passes of twelve words, longer than the drain of four rows: not one cycle is lost."""
    config = utilization.wide_config(4, 4, elements=48, passes=12)
    assert utilization.measure_wide(config, elements=48, passes=12, ratio=ratio) == 1


def test_short_passes_wait_for_the_drain():
    config = utilization.wide_config(4, 4, elements=48, passes=12)
    assert utilization.measure_wide(config, elements=8, passes=12, ratio=0.1) == 2 / 4


def test_command(capsys):
    arguments = "--rows 4 --cols 4 --depths 2 --elements 64 --passes 3 --ratios 0"
    assert cli.main(["utilization", *arguments.split()]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| 2 | 0 % | 0.0 % | 1.000 | 1.000 | 1.000 |"


def test_command_beside_the_design_study(capsys):
    """It knows words, whichever of their lanes the outlier is in; the bound is 1 / 1.1²."""
    arguments = "--rows 4 --cols 4 --depths 2 --elements 64 --passes 3 --ratios 0.1 --word-lanes 1"
    assert cli.main(["utilization", *arguments.split()]) == 0
    *_, columns, _, row = capsys.readouterr().out.splitlines()
    assert (
        columns.endswith("| bound | design study |")
        and row.startswith("| 2 | 10 % | 10.0 % | ")
        and row.endswith(" | 0.826 | 0.64 |")
    )


def test_comparison(capsys, tmp_path):
    target = tmp_path / "out" / "table.md"
    arguments = "--rows 4 --cols 4 --depths 2 --modelled 3 --elements 48 --passes 12 --ratios 0 0.1 --markdown"
    assert cli.main(["compare", *arguments.split(), str(target)]) == 0
    text = capsys.readouterr().out
    assert text == target.read_text()
    table = {cells[1].strip(): cells[2:-1] for cells in (line.split("|") for line in text.splitlines() if line.startswith("| "))}
    wide, fused, model = (float(cell.strip(" *")) for cell in table["utilization, 10 % outliers"])
    assert wide == 1
    assert 0.3 < fused < 0.554 and fused <= model < 0.554
    areas = next(
        [float(cell.replace(",", "")) for cell in cells] for title, cells in table.items() if title.startswith("area a PE")
    )
    costs = [float(cell) for cell in table["area × cycles against fused, d = 2, 10 % outliers"]]
    assert costs == pytest.approx([areas[0] * fused / areas[1], 1, areas[2] * fused / areas[1] / model], abs=0.01)
