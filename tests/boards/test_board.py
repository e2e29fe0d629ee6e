"""What a board is built from."""

from nibblecore.hdl.boards.targets import build_of
from nibblecore.hdl.config import CAMBRICONQ, PRESETS
from nibblecore.sim.machines import Config


def test_a_board_says_what_it_was_built_from():
    configs: list[Config] = [*PRESETS.values(), *CAMBRICONQ.values()]
    builds = [build_of(config) for config in configs]
    assert len(set(builds)) == len(builds) and all(len(build) == 8 for build in builds)
