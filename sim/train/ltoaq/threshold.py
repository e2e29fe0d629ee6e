"""One tensor's learnable threshold, and the scale that follows from it."""

import math
from typing import Literal

import numpy as np
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.golden.ltoaq.top import Statistics
from numpy.typing import NDArray

__all__ = ["Threshold"]

_INITIAL_PERCENTILE = 97
_LEAST, _MOST = 1e-3, 0.999  # of x_max
_GRADIENT_FRACTION = 256
_TARGET_RATIO, _TRACKING_RATE = 0.03, 2.0


class Threshold:
    """α and x_max of one tensor of the network, from step to step.

    The quantizer of a step needs both before it has seen a value: α is what has been learned so far, x_max the largest magnitude
    of the step before. What lies beyond the range saturates. The first step has neither; the host measures its batch.

    Activations and weights learn α with the gradient of equation (3). Errors have none: the loss does not depend on how its own
    gradient is rounded. Their α follows the outlier count that every quantizer pass reports anyway,
    α ← α·exp(γ·(ratio − 3 %)), which keeps up as errors shrink during training.

    Parameters
    ----------
    kind : str
        ``"activation"``, ``"weight"`` or ``"error"``; for reports.
    bits : int
    signed, relu : bool
        As the quantizer takes them.
    """

    def __init__(self, kind: Literal["activation", "weight", "error"], bits: int, *, signed: bool, relu: bool = False) -> None:
        self.kind, self.bits, self.signed, self.relu = kind, bits, signed, relu
        self.alpha = self.x_max = 0.0
        self.outlier_ratio = 0.0

    def quantizer(self, words: NDArray[np.int32], unit: float) -> QuantizerParameters:
        """Parameters for a tensor of `words` of real value `unit` each. The words are looked at in the first step only."""
        if not self.x_max:
            magnitude = np.abs(np.maximum(words, 0) if self.relu else words.astype(np.int64)) * unit
            self.x_max = max(float(magnitude.max()), unit)
            self.alpha = float(np.percentile(magnitude, _INITIAL_PERCENTILE))
            self._clamp()
        return QuantizerParameters.for_range(self.alpha, self.x_max, unit, self.bits, self.signed, self.relu)

    def observe(self, statistics: Statistics, elements: int, unit: float) -> None:
        """Take over what the quantizer pass of this step measured."""
        self.outlier_ratio = statistics.outliers / elements
        self.x_max = max(statistics.x_max * unit, unit)
        if self.kind == "error":
            self.alpha *= math.exp(_TRACKING_RATE * (self.outlier_ratio - _TARGET_RATIO))
        self._clamp()

    def learn(self, gradient_sum: int, gradient_unit: float, code_max: int, rate: float) -> None:
        """α ← α − rate·∂L/∂α, from the sum that THRESHOLD_GRAD returns."""
        self.alpha -= rate * gradient_sum * gradient_unit / (_GRADIENT_FRACTION * code_max)
        self._clamp()

    def _clamp(self) -> None:
        self.alpha = min(max(self.alpha, _LEAST * self.x_max), _MOST * self.x_max)
