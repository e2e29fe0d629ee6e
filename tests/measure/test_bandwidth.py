"""What an SDRAM carries is measured on the design, and only where there is one."""

from nibblecore.sim import cli
from nibblecore.sim.measure import bandwidth


def test_bursts_take_the_chips_bandwidth(monkeypatch):
    monkeypatch.setattr(bandwidth, "_BYTES", 1 << 11)
    assert 0.8 * 2 <= bandwidth.measure("ulx3s_sdram", "read one behind the other") < 2


def test_a_board_without_sdram_is_refused(capsys):
    assert cli.main(["bandwidth", "--board", "ulx3s"]) == 2
    assert "its memory is block RAM" in capsys.readouterr().err
