"""Large matrix products on Cambricon-Q's Verilog: how busy its PE array is, and whether every result is right.

    nibblecore product --config paper --size 512 --bits 4 8

Operands are quantized in memory; VLOAD fetches them, MM multiplies as many columns at a time as half of NBout holds, and SSTORE writes them
back while MM fills the other half.
"""

import sys
from dataclasses import dataclass

import numpy as np
from nibblecore.hdl.cambriconq.program.isa import Instruction, Opcode, encode
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.progress import doing
from nibblecore.sim.refusal import Refusal

__all__ = ["Measured", "main", "measure"]

_PRODUCT = 1
_PROGRAM = 0


@dataclass(frozen=True)
class Measured:
    """What one product cost. `product_cycles` are those from the first MM to the end of the last SSTORE, `cycles` the whole program's."""

    macs: int
    product_cycles: int
    array_cycles: int
    cycles: int
    peak: float  # MACs a cycle

    @property
    def utilization(self) -> float:
        return self.macs / (self.product_cycles * self.peak)


def program(config: CambriconqConfig, size: int, bits: int, a: int, w: int, result: int) -> list[Instruction]:
    """result = a · wᵀ, all of size × size; `a` and `w` are byte addresses of lines, with their tags behind them."""
    slot = bits // 4
    vectors = -(-size // config.cols)
    row_lines = vectors * slot
    loads = {}
    for side, (at, lines) in enumerate(((a, config.nbin_lines), (w, config.sb_lines))):
        if size * row_lines > lines:
            raise ValueError(f"an operand of {size} rows needs {size * row_lines} lines; the buffer has {lines}")
        loads[side] = Instruction.of(
            Opcode.VLOAD,
            side=side,
            slot=slot,
            vectors=size * vectors,
            dest=0,
            src=at,
            src_tags=at + size * row_lines * config.line_bytes,
        )
    instructions = list(loads.values())
    half = config.nbout_words // 2
    part = min(size, half // size // config.rows * config.rows)
    if not part:
        raise ValueError(f"half of NBout holds {half} results, fewer than {size} rows of {config.rows}")
    pitch = -(-part // config.nbout_lanes) * config.nbout_lanes
    group = max(g for g in (1, 2, 4) if g * slot <= 4)
    for number, first in enumerate(range(0, size, part)):
        cols, place = min(part, size - first), half * (number % 2)
        instructions += [
            Instruction.of(
                Opcode.MM,
                phase=_PRODUCT,
                group=group,
                rows=size,
                cols=cols,
                dest=place,
                dest_row=pitch,
                a=0,
                a_row=row_lines,
                w=first * row_lines,
                w_row=row_lines,
                a_slot=slot,
                w_slot=slot,
                vectors=vectors,
            ),
            Instruction.of(
                Opcode.SSTORE,
                phase=_PRODUCT,
                rows=size,
                cols=cols,
                dest=result + 4 * first,
                dest_row=4 * size,
                src=place,
                src_row=pitch,
                src_col=1,
            ),
        ]
    return [*instructions, Instruction.of(Opcode.HALT)]


def measure(config: CambriconqConfig, size: int, bits: int, seed: int) -> Measured:
    """The product of two random matrices on the hardware, compared with the functional model's.

    Raises `Mismatch`, and `Refusal` if the matrices do not fit the buffers.
    """
    rng = np.random.default_rng(seed)
    operand = size * -(-size // config.cols) * (config.line_bytes * bits // 4 + 2)
    step = -(-operand // 4096) * 4096
    first = 1 << 16
    a, w, result = (first + n * step for n in range(3))
    try:
        raw = b"".join(map(encode, program(config, size, bits, a, w, result)))
    except ValueError as error:
        raise Refusal("size", str(error)) from None
    memory = np.zeros(1 << (result + 4 * size * size).bit_length(), np.uint8)
    lines = size * -(-size // config.cols) * bits // 4 * config.line_bytes
    for at in (a, w):
        memory[at : at + lines] = rng.integers(0, 256, lines)
        # A tag for each row, as if it had been quantized in one block.
        tags = np.repeat(rng.integers(-20, 0, size) & 255 | (bits // 4 - 1) << 8, -(-size // config.cols)).astype(np.uint16)
        memory[at + lines : at + lines + 2 * len(tags)] = tags.view(np.uint8)
    memory[_PROGRAM : _PROGRAM + len(raw)] = np.frombuffer(raw, np.uint8)
    with CheckedAccelerator(CambriconqAccelerator(config, memory_size=len(memory), seed=seed)) as checked:
        with doing(f"multiplying {size} × {size} × {size}"):
            checked.write_memory(0, memory.tobytes())
            checked.run(_PROGRAM)
        counters = checked.counters()
    return Measured(
        macs=size**3,
        product_cycles=counters[f"phase{_PRODUCT}"],
        array_cycles=counters["array_cycles"],
        cycles=counters["cycles"],
        peak=config.rows * config.cols / (bits // 4) ** 2,
    )


def main(*, config: CambriconqConfig, size: int, bits: list[int], seed: int) -> int:
    """``nibblecore product``."""
    try:
        found = [measure(config, size, width, seed) for width in bits]
    except Mismatch as mismatch:
        print(f"the accelerator differs from the functional model: {mismatch}", file=sys.stderr)
        return 1
    print(f"`{config.name}`: {size} × {size} × {size}; all of memory equals the functional model's.\n")
    print(
        "| bits | MACs a cycle at most | cycles, products and stores | share of peak | lines enter the array in | with the loads before |"
    )
    print("| ---: " * 6 + "|")
    for width, m in zip(bits, found, strict=True):
        print(
            f"| {width} | {m.peak:,.0f} | {m.product_cycles:,} | {m.utilization:.1%} | {m.array_cycles:,} cycles | {m.cycles:,} cycles |"
        )
    return 0
