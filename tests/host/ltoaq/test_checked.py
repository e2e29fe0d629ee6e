"""What is compared beside the numbers that training's tests spoil (tests/train/test_training.py)."""

from dataclasses import replace

import numpy as np
import pytest
from nibblecore.hdl.config import TINY
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.checked import CheckedAccelerator

QUANTIZER = QuantizerParameters.for_range(200.0, 800.0, 1.0, 8, True)


@pytest.fixture
def checked():
    return CheckedAccelerator(LtoaqAccelerator(TINY, transport="functional"))


def operands(checked, k=20, code=3):
    tensor = OaqTensor(np.full((2, k), code, np.uint8), np.full((2, k), code == 127), 8, True, 127, 3)
    return checked.upload(tensor), checked.upload(tensor)


@pytest.mark.parametrize("quantizer", [None, QUANTIZER], ids=["raw", "tensor"])
def test_the_overflow_is_compared(checked, monkeypatch, quantizer):
    options = {} if quantizer is None else {"quantizer": quantizer}
    checked.place = "step 3"
    assert not checked.gemm("product", *operands(checked), **options).overflow
    assert checked.gemm("product", *operands(checked, 2**31 // 1023**2 + 1, 127), **options).overflow
    real = checked.accelerator.gemm
    monkeypatch.setattr(checked.accelerator, "gemm", lambda *a, **o: replace(real(*a, **o), overflow=True))
    with pytest.raises(Mismatch, match=r"^step 3, product: the overflow flag is True, expected False$"):
        checked.gemm("product", *operands(checked), **options)


def test_a_product_as_a_tensor_is_compared(checked, monkeypatch):
    good = checked.gemm("product", *operands(checked), quantizer=QUANTIZER)
    assert checked.comparisons == 4 + len(good.statistics)
    real = checked.accelerator.gemm

    def spoilt(*arguments, **options):
        handle = real(*arguments, **options)
        checked.accelerator.write_memory(handle.codes, b"\x55")
        return handle

    monkeypatch.setattr(checked.accelerator, "gemm", spoilt)
    with pytest.raises(
        Mismatch, match=r"^product: element \[0, 0\] is \w+ code 85, expected \w+ code \d+ \(1 of 4 elements differ\)$"
    ):
        checked.gemm("product", *operands(checked), quantizer=QUANTIZER)
