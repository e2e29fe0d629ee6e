"""What a written file says of itself: project, licence, version, commit, configuration."""

import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nibblecore.sim.machines import Config, machine_of

__all__ = ["LICENCE", "TITLES", "commit", "origin"]

_ROOT = Path(__file__).resolve().parents[2]

LICENCE = "Apache-2.0"
TITLES = {"ltoaq": "LT-OAQ", "cambriconq": "Cambricon-Q"}


def commit() -> str:
    """The commit of the checkout that this runs from, with ``-dirty`` if a tracked file differs from it; "" where there is none."""
    if not (_ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        run = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def origin(config: Config, name: str, what: str) -> list[str]:
    """The lines at the head of file `name`, without comment signs; `what`: "Verilog", "registers in SystemRDL", …"""
    parameters = {field: value for field, value in asdict(config).items() if field != "name"}
    at = f", commit {found}" if (found := commit()) else ""
    return [
        f"SPDX-License-Identifier: {LICENCE}",
        f"{name}: {TITLES[machine_of(config)]}, {what}",
        f"Written by nibblecore {version('nibblecore')}{at}; change the source, not this file.",
        f"Configuration {config.name}: {_listed(parameters)}",
    ]


def _listed(parameters: dict[str, Any]) -> str:
    values = ((name, f"({_listed(value)})" if isinstance(value, dict) else value) for name, value in parameters.items())
    return ", ".join(f"{name} {value}" for name, value in values)
