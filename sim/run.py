"""Run a program on the simulated Cambricon-Q, beside the functional model.

    python -m nibblecore.sim.run program.s --memory before.bin --output after.bin

The program is source for the assembler (``.s``, see `nibblecore.sim.compiler.asm`) or a binary. The image lies at address 0, the program
behind it, or at ``--entry``; the rest of memory is 0. After the run all of memory is compared with the functional model's.
"""

import argparse
import sys
from pathlib import Path

from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES
from nibblecore.hdl.cambriconq.registers import PHASES
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.compiler.asm import AssemblyError, assemble
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator, ProgramError
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.checked import Mismatch

__all__ = ["main"]


def _number(text: str) -> int:
    return int(text, 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nibblecore.sim.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("program", type=Path, help="source (.s) or binary")
    parser.add_argument("--config", default="tiny", choices=CAMBRICONQ, help="machine (default: tiny)")
    parser.add_argument("--memory", type=Path, metavar="IMAGE", help="what memory holds before, from address 0 on")
    parser.add_argument("--output", type=Path, metavar="IMAGE", help="file for what memory holds after")
    parser.add_argument("--entry", type=_number, metavar="ADDRESS", help="of the program (default: the first free multiple of 64)")
    parser.add_argument("--memory-size", type=_number, default=1 << 20, metavar="BYTES", help="a multiple of 64 (default: 1 MiB)")
    parser.add_argument("--stall", type=float, default=0.0, help="share of cycles in which the bus waits, below 1 (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the stalls and of what registers hold at first (default: 0)")
    parser.add_argument("--waves", action="store_true", help="write a waveform below build/waves")
    return parser


def _loaded(options: argparse.Namespace) -> tuple[bytes, bytes, int]:
    """Image, program and its address. Raises AssemblyError, OSError or ValueError."""
    program = assemble(options.program.read_text()) if options.program.suffix == ".s" else options.program.read_bytes()
    if not program or len(program) % INSTRUCTION_BYTES:
        raise ValueError(f"{options.program}: {len(program)} bytes are no whole number of instructions of {INSTRUCTION_BYTES}")
    image = options.memory.read_bytes() if options.memory else b""
    entry = -(-len(image) // INSTRUCTION_BYTES) * INSTRUCTION_BYTES if options.entry is None else options.entry
    size = options.memory_size
    if size <= 0 or size % INSTRUCTION_BYTES:
        raise ValueError(f"--memory-size {size} is no multiple of {INSTRUCTION_BYTES}")
    if not 0 <= options.stall < 1:
        raise ValueError(f"--stall {options.stall} is not in 0..1, 1 excluded")
    if entry < 0 or max(len(image), entry + len(program)) > size:
        raise ValueError(
            f"image (0..{len(image):#x}) and program ({entry:#x}..{entry + len(program):#x}) need more memory than {size:#x}"
        )
    return image, program, entry


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        image, program, entry = _loaded(options)
    except AssemblyError as error:
        print(f"{options.program}: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    accelerator = CambriconqAccelerator(
        CAMBRICONQ[options.config], memory_size=options.memory_size, seed=options.seed, stall=options.stall, waves=options.waves
    )
    stopped = None
    with CheckedAccelerator(accelerator) as checked:
        checked.write_memory(0, image)
        checked.write_memory(entry, program)
        try:
            checked.run(entry)
        except ProgramError as error:
            stopped = error
        except Mismatch as mismatch:
            print(f"the accelerator differs from the functional model: {mismatch}", file=sys.stderr)
            return 1
        except TimeoutError as error:
            print(error, file=sys.stderr)
            return 1
        after, counters = checked.read_memory(0, options.memory_size), checked.counters()
    phases = ", ".join(f"phase {n} {cycles:,}" for n in range(PHASES) if (cycles := counters[f"phase{n}"]))
    print(f"{len(program) // INSTRUCTION_BYTES} instructions at {entry:#x}, config {options.config}")
    print(f"{counters['cycles']:,} cycles, the array at work in {counters['array_cycles']:,}" + (f"; {phases}" if phases else ""))
    print(f"{len(after):,} bytes of memory equal the functional model's")
    if options.output:
        options.output.write_bytes(after)
        print(options.output)
    if stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
