"""The digits and their batches."""

import numpy as np
import pytest
from nibblecore.sim.train import data


def test_the_data():
    images = data.load()
    assert len(images.train_labels) == 1437 and len(images.test_labels) == 360
    assert images.train_images.min() == 0 and images.train_images.max() == data.PIXEL_MAX
    assert (images.test_images[:, 0] == data.PIXEL_MAX).all(), "the first pixel carries the biases"
    assert np.ptp(np.bincount(images.test_labels)) <= 3
    rows = {row.tobytes() for row in images.train_images}
    assert sum(row.tobytes() in rows for row in images.test_images) == 0
    order = data.Batches(10, 3, np.random.default_rng(0))
    first, second = (np.concatenate([next(order) for _ in range(3)]) for _ in range(2))
    assert len(set(first)) == len(set(second)) == 9 and not np.array_equal(first, second)
    with pytest.raises(ValueError, match=r"1\.\.10"):
        data.Batches(10, 11, np.random.default_rng(0))
