from dataclasses import replace

import pytest
from nibblecore.hdl.cambriconq.top import Accelerator
from nibblecore.hdl.config import CAMBRICONQ

TINY = CAMBRICONQ["tiny"]


@pytest.mark.parametrize("rows, cols", [(4, 8), (4, 16), (8, 8), (8, 32), (16, 64), (256, 64), (128, 128)])
def test_sizes_that_cannot_be_built_are_refused(rows, cols):
    with pytest.raises(ValueError, match=f"config 'other': the hardware takes .* not {rows} and {cols}"):
        Accelerator(replace(TINY, name="other", rows=rows, cols=cols, vector_lanes=1))


@pytest.mark.parametrize("rows, cols", [(8, 16), (16, 16), (16, 32), (64, 64), (128, 16)])
def test_sizes_that_can(rows, cols):
    assert Accelerator(replace(TINY, name="other", rows=rows, cols=cols)).m_axi.signature.bus_bytes == cols // 2
