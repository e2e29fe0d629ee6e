"""The cluster's twin; the Verilog of clusters runs in test_fused_array.py, their control is proved in formal/."""

import numpy as np
from nibblecore.sim.golden.ltoaq.fused.cluster import Operand, dot_product, operand, pass_cycles, schedule
from nibblecore.sim.perf.fused_array import beat_cycles, result_times


def test_schedule_covers_every_pair_and_wastes_no_slot():
    rng = np.random.default_rng(1)
    for _ in range(300):
        a_hot, w_hot = rng.random((2, 2 * rng.integers(1, 12))) < rng.choice([0, 0.1, 0.5, 1])
        cycles = list(schedule(a_hot.tolist(), w_hot.tolist()))
        entries = sorted((pair, -1 if step is None else step) for cycle in cycles for pair, step in cycle)
        wanted = []
        for pair, (a, w) in enumerate(zip(a_hot, w_hot, strict=True)):
            wanted += [(pair, 0), (pair, 1)] if a and w else [(pair, 0)] if a or w else [(pair, -1)]
        assert entries == wanted
        assert len(cycles) == pass_cycles(a_hot, w_hot)


def test_overflow_depends_on_the_running_sum():
    big = operand(np.full((600, 1), 255), np.ones((600, 1), bool), 8, False, 255, 3)
    value, overflow = dot_product(big, big)
    assert overflow and value == (600 * (255 + 255 * 8) ** 2 + 2**31) % 2**32 - 2**31
    minus = Operand(np.concatenate([big.values, -big.values]), np.concatenate([big.bases, -big.bases]), np.ones(1200, bool))
    there_and_back = dot_product(minus, Operand(*(np.concatenate([x, x]) for x in big)))
    assert there_and_back == (0, True)


def test_model_spends_the_cycles_of_the_schedule():
    rng = np.random.default_rng(1)
    for beats in (1, 2, 9):
        a, w = (rng.random((rows, beats, 2)) < 0.4 for rows in (3, 2))
        cycles = beat_cycles(a, w).sum(-1)
        for row, column in np.ndindex(3, 2):
            assert cycles[row, column] == pass_cycles(a[row].ravel(), w[column].ravel())


def test_model_keeps_every_result_in_order():
    rng = np.random.default_rng(1)
    cycles = np.concatenate([beat_cycles(rng.random((4, 3, 2)) < 0.3, rng.random((2, 3, 2)) < 0.3) for _ in range(6)], axis=-1)
    times = result_times(cycles, 3, 2)
    assert times.shape == (2, 24) and (np.diff(times) >= 1).all()
