"""Write the accelerator's Verilog.

    nibblecore verilog --machine ltoaq --config paper

writes ``build/verilog/ltoaq_paper.v`` and, beside it, ``ltoaq_paper.json`` with ports, configuration and tool versions, then
lints the Verilog with Verilator.
"""

import os
import re
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from nibblecore.hdl.emit.emit import emit_verilog, sidecar

from . import verilator
from .machines import Config, accelerator, full_name

__all__ = ["LintError", "lint", "main", "write"]


class LintError(RuntimeError):
    """Verilator finds fault with generated Verilog."""


def write(config: Config, folder: Path) -> Path:
    """The accelerator of `config` as ``folder/<machine>_<config>.v`` with its sidecar; on failure neither file changes."""
    name = full_name(config)
    component = accelerator(config)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as temporary:
        source = Path(temporary, f"{name}.v")
        source.write_text(emit_verilog(component, name))
        latencies = getattr(component, "latencies", {})
        source.with_suffix(".json").write_text(sidecar(component, name, config=asdict(config), latencies=latencies))
        lint(source)
        for file in (source, source.with_suffix(".json")):
            os.replace(file, folder / file.name)
    return folder / source.name


def lint(source: Path) -> None:
    """Raises `LintError` unless ``verilator --lint-only`` with `verilator.WARNINGS` is silent about `source`."""
    command = [verilator.executable(), "--lint-only", *verilator.WARNINGS, "--top-module", source.stem, str(source)]
    run = subprocess.run(command, env=verilator.environment(), capture_output=True, text=True)
    if run.returncode or run.stderr.strip():
        raise LintError(f"Verilator's lint of {source.name}:\n{(run.stdout + run.stderr)[-4000:]}")


def main(*, config: Config, output: Path) -> int:
    """``nibblecore verilog``."""
    started = time.monotonic()
    path = write(config, output)
    text = path.read_text()
    modules = len(re.findall(r"^module ", text, re.M))
    seconds = time.monotonic() - started
    print(f"{path}: {len(text) / 1000:.0f} kB, {modules} modules, {seconds:.1f} s; lint clean")
    print(path.with_suffix(".json"))
    return 0
