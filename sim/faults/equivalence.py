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

    What a stream carries counts while it is valid; what the hardware leaves undefined counts as 0. False if they differ, and if
    `timeout` seconds do not suffice.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides = {"gold": "\n".join(text.lines), "gate": mutated(text, fault)}
        top, frame = _masked(text, module)
        commands = []
        for side, verilog in sides.items():
            Path(folder, f"{side}.v").write_text(f"{verilog}\n{frame}")
            commands += [
                f"read_verilog {side}.v",
                f"prep -flatten -top {top}",
                "memory_map",
                "setundef -zero -undriven -init",
                f"rename {top} {side}",
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
            # Where scorr leaves no register, or there was none, pdr decides nothing and iprove does.
            script = f"read miter.aig; strash; scorr; pdr -T {timeout}; iprove"
            run = subprocess.run([str(_abc()), "-c", script], cwd=folder, capture_output=True, text=True, timeout=2 * timeout)
        except subprocess.TimeoutExpired:
            return False
        return re.search(r"^(Property proved|UNSATISFIABLE)", run.stdout, re.M) is not None


def _masked(text: Text, module: str) -> tuple[str, str]:
    """A module around `module`, its name and text, that shows a payload only while its stream is valid."""
    top, ports = f"masked_{module}", text.ports(module)
    lines = [f"module {top}({', '.join(ports)});"]
    for port, (direction, width) in ports.items():
        stream = port.partition("__payload")[0]
        shown = f"{{{width}{{bare_{stream}__valid}}}} & " if ports.get(f"{stream}__valid") == ("output", 1) else ""
        lines += [f"  {direction} [{width - 1}:0] {port};", f"  wire [{width - 1}:0] bare_{port};"]
        lines.append(f"  assign {port} = {shown}bare_{port};" if direction == "output" else f"  assign bare_{port} = {port};")
    connected = ", ".join(f".{port}(bare_{port})" for port in ports)
    return top, "\n".join([*lines, f"  {module} inner({connected});", "endmodule", ""])


def _abc() -> Path:
    spec = find_spec("pyosys")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "yosys-abc"
