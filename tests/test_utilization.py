import pytest
from nibblecore.sim import utilization


@pytest.mark.parametrize("ratio", [0, 0.1])
def test_model_gives_the_figure_of_the_verilog(ratio):
    # Short passes, so that draining results hold up clusters as well.
    measured, model = utilization.measure(4, 4, 2, words=8, passes=12, ratio=ratio)
    assert measured == model
    assert 0.3 < measured <= 1


def test_no_array_passes_the_bound():
    measured, _ = utilization.measure(4, 4, 2, words=64, passes=4, ratio=0.05)
    word = 1 - 0.95**4
    assert 0.5 < measured < 1.05 / (1 + word) ** 2


def test_command(capsys):
    utilization.main(["--rows", "4", "--cols", "4", "--depths", "2", "--elements", "64", "--passes", "3", "--ratios", "0"])
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[:4] == ["2", "0.000", "0.000", "1.000"]
