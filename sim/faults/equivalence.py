"""Whether a fault changes nothing.

Yosys joins the module as it is and the module with the fault; ABC looks for inputs that tell them apart, or proves that there are none.
"""

import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from .seeding import Fault, Text, mutated

__all__ = ["equivalent"]

_YOSYS = "import sys; from pyosys import libyosys as ys; d = ys.Design(); [ys.Pass.call(d, f'tee -q {c}') for c in sys.argv[1:]]"


def equivalent(text: Text, fault: Fault, module: str, timeout: int = 120) -> bool:
    """True if the outputs of `module` are proved to be the same with the fault, from power-up on and under any inputs.

    What the hardware leaves undefined counts as 0. False if they differ, and if `timeout` seconds do not suffice.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides = {"gold": "\n".join(text.lines), "gate": mutated(text, fault)}
        commands = []
        for side, verilog in sides.items():
            Path(folder, f"{side}.v").write_text(verilog)
            commands += [
                f"read_verilog {side}.v",
                f"prep -flatten -top {module}",
                "memory_map",
                "setundef -zero -undriven",
                f"rename {module} {side}",
                f"design -stash {side}",
            ]
        commands += [
            "design -copy-from gold -as gold gold",
            "design -copy-from gate -as gate gate",
            "miter -equiv -flatten -make_assert gold gate miter",
            "hierarchy -top miter",
            "async2sync",
            "opt -full",
            "techmap",
            "opt -fast",
            "dffunmap",
            "simplemap",
            "aigmap",
            "opt_clean",
            "setundef -zero",
            "write_aiger -zinit miter.aig",
        ]
        try:
            run = subprocess.run(
                [sys.executable, "-c", _YOSYS, *commands], cwd=folder, capture_output=True, text=True, timeout=timeout
            )
            if run.returncode:
                return False
            registers = int(Path(folder, "miter.aig").read_bytes().split()[3])
            script = f"read miter.aig; strash; {f'scorr; pdr -T {timeout}' if registers else 'iprove'}"
            run = subprocess.run([str(_abc()), "-c", script], cwd=folder, capture_output=True, text=True, timeout=2 * timeout)
        except subprocess.TimeoutExpired:
            return False
        return re.search(r"^(Property proved|UNSATISFIABLE)", run.stdout, re.M) is not None


def _abc() -> Path:
    spec = find_spec("pyosys")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "yosys-abc"
