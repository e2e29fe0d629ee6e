"""The handwritten digits: 1797 images of 8 × 8 pixels of 0..16, from scikit-learn."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from nibblecore.sim.progress import doing
from numpy.typing import NDArray

__all__ = ["CLASSES", "PIXELS", "PIXEL_MAX", "SHAPE", "Batches", "Digits", "load"]

SHAPE = (8, 8, 1)
"""Height, width and channels of an image."""
PIXELS = 64
PIXEL_MAX = 16
CLASSES = 10
_TEST_IMAGES = 360


class Digits(NamedTuple):
    """Images, one a row, as 32-bit pixels; labels 0..9. The test images are the same whatever the seed.

    Of own samples (`own.load`) rows are FP32 numbers, and labels have as many values as there are classes."""

    train_images: NDArray[Any]
    train_labels: NDArray[np.int64]
    test_images: NDArray[Any]
    test_labels: NDArray[np.int64]


def load() -> Digits:
    """1437 images to train on and 360 to test, with equal shares of each digit.

    The first pixel is blank in every image; it is set to PIXEL_MAX throughout, so that its weights are the first layer's biases.
    """
    with doing("loading the digits"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
    images = images.astype(np.int32)
    if images[:, 0].any():
        raise ValueError("the first pixel is meant to be blank in every image")
    images[:, 0] = PIXEL_MAX
    parts = train_test_split(images, labels.astype(np.int64), test_size=_TEST_IMAGES, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = parts
    return Digits(train_images, train_labels, test_images, test_labels)


class Batches:
    """For ever: `size` different indices below `count`; every epoch in a new order, a last part that is too small left out.

    Members
    -------
    order : array
        Of the indices, in this epoch.
    place : int
        Where the next batch begins in it.
    rng : Generator
        That shuffles the epochs to come.
    """

    def __init__(self, count: int, size: int, rng: np.random.Generator) -> None:
        if not 1 <= size <= count:
            raise ValueError(f"a batch must have 1..{count} images, not {size}")
        self.size, self.rng = size, rng
        self.order, self.place = rng.permutation(count), 0

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return self

    def __next__(self) -> NDArray[np.int64]:
        if self.place + self.size > len(self.order):
            self.order, self.place = self.rng.permutation(len(self.order)), 0
        self.place += self.size
        return self.order[self.place - self.size : self.place]
