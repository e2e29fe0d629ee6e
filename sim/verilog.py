"""Write the accelerator's Verilog.

    python -m nibblecore.sim.verilog --config paper

writes ``build/verilog/ltoaq_paper.v`` and, beside it, ``ltoaq_paper.json`` with ports, configuration and tool versions, then
lints the Verilog with Verilator.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from nibblecore.hdl.config import PRESETS, LtoaqConfig
from nibblecore.hdl.emit import emit_verilog, sidecar
from nibblecore.sim import verilator

__all__ = ["LintError", "lint", "write"]


class LintError(RuntimeError):
    """Verilator finds fault with generated Verilog."""


def write(config: LtoaqConfig, folder: Path) -> Path:
    """The accelerator of `config` as ``folder/ltoaq_<config>.v`` with its sidecar; on failure neither file changes."""
    from nibblecore.hdl.ltoaq.top import Accelerator

    name = f"ltoaq_{config.name}"
    component = Accelerator(config)
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nibblecore.sim.verilog", description="Write the accelerator's Verilog.")
    parser.add_argument("--config", choices=sorted(PRESETS), default="tiny")
    parser.add_argument("--output", type=Path, default=Path("build/verilog"), metavar="FOLDER", help="default: build/verilog")
    options = parser.parse_args(arguments)

    started = time.monotonic()
    try:
        path = write(PRESETS[options.config], options.output)
    except LintError as error:
        print(error, file=sys.stderr)
        return 1
    text = path.read_text()
    modules = len(re.findall(r"^module ", text, re.M))
    seconds = time.monotonic() - started
    print(f"{path}: {len(text) / 1000:.0f} kB, {modules} modules, {seconds:.1f} s; lint clean")
    print(path.with_suffix(".json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
