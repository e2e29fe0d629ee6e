"""The learnable threshold: initialisation, equation (3)'s step, tracking, clamping."""

import numpy as np
import pytest
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.golden.ltoaq.top import Statistics
from nibblecore.sim.train.ltoaq.threshold import Threshold

UNIT = 2.0**-10


def words(seed=0, scale=500):
    return np.rint(np.random.default_rng(seed).laplace(0, scale, (50, 60))).astype(np.int32)


@pytest.mark.parametrize("relu", [False, True])
def test_starts_at_the_97th_percentile_of_what_the_quantizer_sees(relu):
    threshold, y = Threshold("activation", 4, signed=not relu, relu=relu), words()
    quantizer = threshold.quantizer(y, UNIT)
    seen = np.maximum(y, 0) if relu else np.abs(y)
    assert threshold.alpha == pytest.approx(np.percentile(seen, 97) * UNIT)
    assert threshold.x_max == seen.max() * UNIT
    assert quantizer.alpha * UNIT == pytest.approx(threshold.alpha, rel=0.01) and quantizer.relu == relu
    assert golden.quantize(y, quantizer)[0].outlier.mean() == pytest.approx(0.03, abs=0.005)


def test_uses_the_largest_value_of_the_step_before():
    threshold = Threshold("weight", 4, signed=True)
    threshold.quantizer(words(1), UNIT)
    alpha = threshold.alpha
    larger = 2 * words(2)
    before = threshold.quantizer(larger, UNIT)
    assert threshold.alpha == alpha, "only the first step looks at the words"
    threshold.observe(golden.quantize(larger, before)[1], larger.size, UNIT)
    assert threshold.x_max == np.abs(larger).max() * UNIT
    assert 0 < threshold.outlier_ratio < 1


def test_a_gradient_step():
    threshold = Threshold("weight", 4, signed=True)
    threshold.quantizer(words(), UNIT)
    alpha = threshold.alpha
    threshold.learn(256 * 7 * 10, 0.5, 7, 0.01)
    assert threshold.alpha == pytest.approx(alpha - 0.01 * 10 * 0.5)


def test_stays_within_the_range():
    threshold = Threshold("weight", 8, signed=True)
    threshold.quantizer(words(), UNIT)
    threshold.learn(10**12, 1.0, 127, 1.0)
    assert threshold.alpha == pytest.approx(1e-3 * threshold.x_max)
    threshold.learn(-(10**12), 1.0, 127, 1.0)
    assert threshold.alpha == pytest.approx(0.999 * threshold.x_max)
    threshold.observe(Statistics(100, 0, 0), 3000, UNIT)
    assert threshold.alpha == pytest.approx(0.999 * 100 * UNIT)


def test_errors_follow_their_outlier_ratio():
    threshold, y = Threshold("error", 4, signed=True), words()
    for _ in range(200):
        quantizer = threshold.quantizer(y, UNIT / 8)  # errors shrink: the first unit is soon far too coarse
        threshold.observe(golden.quantize(y, quantizer)[1], y.size, UNIT / 8)
    assert threshold.outlier_ratio == pytest.approx(0.03, abs=0.005)


def test_a_tensor_of_zeros_is_quantized():
    threshold, zeros = Threshold("error", 4, signed=True), np.zeros((4, 4), np.int32)
    for _ in range(3):
        tensor, statistics = golden.quantize(zeros, threshold.quantizer(zeros, UNIT))
        threshold.observe(statistics, 16, UNIT)
        assert not tensor.codes.any() and not tensor.outlier.any()
    threshold.observe(Statistics(1000, 1, 0), 16, UNIT)
    assert threshold.quantizer(zeros, UNIT).alpha >= 1
