"""A FuseSoC core file (CAPI2) for a machine's Verilog."""

import json
from importlib.metadata import version

from nibblecore.sim import verilator
from nibblecore.sim.machines import Config, machine_of

from .origin import TITLES, origin

__all__ = ["fusesoc_core"]


def fusesoc_core(config: Config, name: str) -> str:
    """``<name>.core``: core ``nibblecore:accelerator:<name>`` with targets ``default`` (the Verilog, to depend on) and ``lint``."""
    comments = [f"# {line}" for line in origin(config, f"{name}.core", "core file for FuseSoC")]
    description = f"{TITLES[machine_of(config)]}, an accelerator that trains neural networks, configuration {config.name}"
    return "\n".join(
        [
            "CAPI=2:",
            *comments,
            f"name: nibblecore:accelerator:{name}:{version('nibblecore')}",
            f"description: {json.dumps(description)}",
            "",
            "filesets:",
            "  rtl:",
            "    files:",
            f"      - {name}.v",
            "    file_type: verilogSource",
            "  descriptions:",
            "    files:",
            *(f"      - {name}.{ending}" for ending in ("h", "rdl", "json")),
            "    file_type: user",
            "",
            "targets:",
            "  default:",
            "    filesets: [rtl, descriptions]",
            f"    toplevel: {name}",
            "  lint:",
            "    filesets: [rtl]",
            f"    toplevel: {name}",
            "    flow: lint",
            "    flow_options:",
            "      tool: verilator",
            f"      verilator_options: {json.dumps(verilator.WARNINGS)}",
            "",
        ]
    )
