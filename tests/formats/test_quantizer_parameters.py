"""What docs/formats.md says of choosing a quantizer, against the parameters that are chosen."""

import re
from pathlib import Path

import pytest
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
ROWS = re.findall(r"^\| ([48]) bits, (un)?signed \| (\d+) \| ([\d, ]+) \| (\d+)/(\d+) = ([\d.]+) \|$", PAGE, re.M)


def test_the_table_is_there():
    assert len(ROWS) == 4


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}{row[1]}")
def test_how_far_codes_reach(row):
    bits, unsigned, threshold, values, most, again, ratio = row
    choices = [
        QuantizerParameters(bits=int(bits), signed=not unsigned, alpha=1000, multiplier=200, shift=4, k=k, threshold=int(threshold))
        for k in range(4)
    ]
    assert choices[0].code_max == int(threshold) == int(again)
    assert [q.threshold + q.q_max * 2**q.k for q in choices] == [int(value) for value in values.split(",")]
    assert max(int(value) for value in values.split(",")) == int(most)
    assert f"{int(most) / int(threshold):.1f}" == ratio


@pytest.mark.parametrize("alpha", [1.0, 6.9, 100.0, 12345.0, 3e6, 2e9])
@pytest.mark.parametrize(("bits", "signed"), [(4, True), (4, False), (8, True), (8, False)])
def test_the_step_is_chosen_as_the_page_says(alpha, bits, signed):
    q = QuantizerParameters.for_range(alpha, 1.9 * alpha, 1.0, bits, signed)
    step = alpha / q.threshold
    assert q.threshold == q.code_max and q.alpha == round(q.threshold * 2**q.shift / q.multiplier)
    if q.shift:
        assert 128 <= q.multiplier <= 255 and 2**q.shift / q.multiplier == pytest.approx(step, rel=0.004)
    reach = [QuantizerParameters(**{**vars(q), "k": k}) for k in range(4)]
    fits = [1.9 * alpha < (each.threshold + (each.q_max + 0.5) * 2**each.k) * q.scale for each in reach]
    assert q.k == fits.index(True)
