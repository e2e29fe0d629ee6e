"""What a board is built from."""

import pytest
from nibblecore.hdl.boards.board import Board
from nibblecore.hdl.boards.targets import build_of
from nibblecore.hdl.config import CAMBRICONQ, PRESETS
from nibblecore.sim.machines import Config


def test_a_board_says_what_it_was_built_from():
    configs: list[Config] = [*PRESETS.values(), *CAMBRICONQ.values()]
    builds = [build_of(config) for config in configs]
    assert len(set(builds)) == len(builds) and all(len(build) == 8 for build in builds)


def test_engine_is_refused():
    with pytest.raises(ValueError, match="config 'tiny': its engine needs banks"):
        Board(CAMBRICONQ["tiny"], memory_bytes=1 << 18, clock_hz=25_000_000, baud=None)
