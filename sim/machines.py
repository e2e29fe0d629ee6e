"""The machines by name, for the tools that work on any of them."""

import importlib
from collections.abc import Mapping
from typing import Any, TypeAlias

from nibblecore.hdl.config import CAMBRICONQ, PRESETS, CambriconqConfig, LtoaqConfig

__all__ = ["MACHINES", "Config", "accelerator", "config_of", "full_name", "machine_of"]

Config: TypeAlias = LtoaqConfig | CambriconqConfig

MACHINES: dict[str, Mapping[str, Config]] = {"ltoaq": PRESETS, "cambriconq": CAMBRICONQ}
"""The presets of each machine, by its name and theirs."""


def config_of(machine: str, name: str) -> Config:
    """Raises ValueError, with the names there are, if the machine has no such preset."""
    if name not in MACHINES[machine]:
        raise ValueError(f"{machine} has no configuration {name!r}; it has {', '.join(MACHINES[machine])}")
    return MACHINES[machine][name]


def machine_of(config: Config) -> str:
    """The name of the machine that `config` is a preset of."""
    return "ltoaq" if isinstance(config, LtoaqConfig) else "cambriconq"


def full_name(config: Config) -> str:
    """``"ltoaq_tiny"``, ``"cambriconq_paper"``, …"""
    return f"{machine_of(config)}_{config.name}"


def accelerator(config: Config) -> Any:
    """The component; its package is imported here, so that to ask for names costs nothing."""
    return importlib.import_module(f"nibblecore.hdl.{machine_of(config)}.top").Accelerator(config)
