"""A board's design for its tools, by Amaranth's platforms."""

import os
import warnings
from importlib import import_module
from typing import Any

from nibblecore.hdl.boards.pins import Pinned
from nibblecore.hdl.boards.targets import Target
from nibblecore.sim.machines import Config
from nibblecore.sim.programs import yosys
from nibblecore.sim.refusal import Refusal

from .synthesis import COUNT, EITHER_VALUE

__all__ = ["plan", "platform_of"]


def platform_of(target: Target) -> Any:
    """What amaranth-boards knows of the board."""
    module, _, name = target.platform.partition(":")
    return getattr(import_module(module), name)()


def plan(target: Target, platform: Any, config: Config) -> dict[str, str]:
    """The files from which the tools of the board make a bitstream, by name: the design, constraints and scripts.

    Raises `Refusal` if the board can have no such machine.
    """
    if reason := target.refusal(config):
        raise Refusal("config", reason)
    # For vendors who want Verilog Amaranth starts a yosys.
    os.environ.setdefault("YOSYS", str(yosys()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        files = platform.prepare(Pinned(target, config), "top", emit_src=False, **_scripts(target)).files
    return {name: text if isinstance(text, str) else text.decode() for name, text in files.items()}


def _scripts(target: Target) -> dict[str, str]:
    """What Yosys does besides; other vendors' tools know how to give either value."""
    if target.vendor:
        return {}
    return {"script_after_read": EITHER_VALUE, "script_after_synth": COUNT}
