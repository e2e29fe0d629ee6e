"""Write the accelerator's Verilog.

    nibblecore verilog --machine ltoaq --config paper

writes ``build/verilog/ltoaq_paper.v``, linted with Verilator, and beside it what a system needs to build it in: ``.json`` with ports,
configuration and tool versions, ``.h`` for C, ``.rdl`` for SystemRDL, ``.core`` for FuseSoC (docs/integration.md).
"""

import os
import re
import subprocess
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from nibblecore.hdl.emit.emit import emit_verilog, sidecar

from . import verilator
from .export.c_header import c_header
from .export.fusesoc import fusesoc_core
from .export.origin import origin
from .export.systemrdl import system_rdl
from .machines import Config, accelerator, full_name
from .progress import doing

__all__ = ["LintError", "lint", "main", "write"]


class LintError(RuntimeError):
    """Verilator finds fault with generated Verilog."""


def write(config: Config, folder: Path, *, prefix: str = "") -> Path:
    """The accelerator of `config` as ``folder/<prefix><machine>_<config>.v`` with all that lies beside it; on failure no file changes."""
    verilator.executable()  # what is missing or cannot be written is said before the work, not after it
    name = prefix + full_name(config)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as temporary:
        component = accelerator(config)
        with doing(f"writing the Verilog of {name}"):
            verilog = emit_verilog(component, full_name(config), prefix=prefix, comments=True)
        header = "".join(f"// {line}\n" for line in origin(config, f"{name}.v", "Verilog"))
        contents = {
            "v": header + verilog.partition("\n")[2],
            "json": sidecar(component, name, config=asdict(config), latencies=getattr(component, "latencies", {})),
            "h": c_header(config, name),
            "rdl": system_rdl(config, name),
            "core": fusesoc_core(config, name),
        }
        for ending, text in contents.items():
            Path(temporary, f"{name}.{ending}").write_text(text, encoding="utf-8")
        with doing(f"Verilator's lint of {name}"):
            lint(Path(temporary, f"{name}.v"))
        for ending in contents:
            os.replace(Path(temporary, f"{name}.{ending}"), folder / f"{name}.{ending}")
    return folder / f"{name}.v"


def lint(source: Path, *others: Path) -> None:
    """Raises `LintError` unless ``verilator --lint-only`` with `verilator.WARNINGS` is silent about `source`, read with `others`.

    The top module has the name of the file `source`.
    """
    command = [
        verilator.executable(),
        "--lint-only",
        *verilator.WARNINGS,
        "--top-module",
        source.stem,
        *map(str, (source, *others)),
    ]
    run = subprocess.run(command, env=verilator.environment(), capture_output=True, text=True)
    if run.returncode or run.stderr.strip():
        raise LintError(f"Verilator's lint of {source.name}:\n{(run.stdout + run.stderr)[-4000:]}")


def main(*, config: Config, output: Path, prefix: str, id_bits: int) -> int:
    """``nibblecore verilog``."""
    started = time.monotonic()
    path = write(replace(config, id_bits=id_bits), output, prefix=prefix)
    text = path.read_text(encoding="utf-8")
    modules = len(re.findall(r"^module ", text, re.M))
    seconds = time.monotonic() - started
    print(f"{path}: {len(text.encode()) / 1000:.0f} kB, {modules} modules, {seconds:.1f} s; lint clean")
    for ending in ("json", "h", "rdl", "core"):
        print(path.with_suffix(f".{ending}"))
    return 0
