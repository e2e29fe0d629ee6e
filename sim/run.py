"""Run a program on the simulated Cambricon-Q, beside the functional model.

    nibblecore run program.s --memory before.bin --output after.bin

The program is source for the assembler (``.s``, see `nibblecore.sim.compiler.asm`) or a binary. The image lies at address 0, the program
behind it, or at ``--entry``; the rest of memory is 0. After the run all of memory is compared with the functional model's.
"""

import sys
from pathlib import Path

from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES
from nibblecore.hdl.cambriconq.registers import PHASES
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim import outputs
from nibblecore.sim.compiler.asm import AssemblyError, assemble
from nibblecore.sim.compiler.program import Phase
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator, ProgramError
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.progress import doing
from nibblecore.sim.refusal import Refusal

__all__ = ["main"]


def main(
    *,
    file: Path,
    config: CambriconqConfig,
    memory: Path | None,
    output: Path | None,
    entry: int | None,
    memory_size: int,
    stall: float,
    seed: int,
    waves: bool,
) -> int:
    """``nibblecore run``."""
    try:
        program = assemble(file.read_text()) if file.suffix == ".s" else file.read_bytes()
    except (AssemblyError, UnicodeDecodeError) as error:
        print(f"{file}: {error if isinstance(error, AssemblyError) else 'is no text'}", file=sys.stderr)
        return 1
    if not program or len(program) % INSTRUCTION_BYTES:
        print(f"{file}: {len(program)} bytes are no whole number of instructions of {INSTRUCTION_BYTES}", file=sys.stderr)
        return 1
    image = memory.read_bytes() if memory else b""
    at = -(-len(image) // INSTRUCTION_BYTES) * INSTRUCTION_BYTES if entry is None else entry
    if max(len(image), at + len(program)) > memory_size:
        ends = f"image (0..{len(image):#x}) and program ({at:#x}..{at + len(program):#x})"
        raise Refusal("memory_size" if entry is None else "entry", f"{ends} need more memory than {memory_size:#x}")
    accelerator = CambriconqAccelerator(config, memory_size=memory_size, seed=seed, stall=stall, waves=waves)
    stopped = None
    with CheckedAccelerator(accelerator) as checked:
        checked.write_memory(0, image)
        checked.write_memory(at, program)
        try:
            with doing(f"running {file.name}"):
                checked.run(at)
        except ProgramError as error:
            stopped = error
        except Mismatch as mismatch:
            print(f"the accelerator differs from the functional model: {mismatch}", file=sys.stderr)
            return 1
        except TimeoutError as error:
            print(error, file=sys.stderr)
            return 1
        after, counters = checked.read_memory(0, memory_size), checked.counters()
    names = {int(phase): phase.name for phase in Phase} | {Phase.OTHER: "other"}
    phases = ", ".join(f"{names.get(n, f'phase {n}')} {cycles:,}" for n in range(PHASES) if (cycles := counters[f"phase{n}"]))
    print(f"{len(program) // INSTRUCTION_BYTES} instructions at {at:#x}, config {config.name}")
    print(f"{counters['cycles']:,} cycles, the array at work in {counters['array_cycles']:,}" + (f"; {phases}" if phases else ""))
    print(f"{len(after):,} bytes of memory equal the functional model's")
    if output:
        outputs.write(output, after)
        print(output)
    if stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return 1
    return 0
