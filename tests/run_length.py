"""What the benches of the run-length decoder and encoder share: the shapes they are built in."""

from collections.abc import Sequence
from dataclasses import dataclass

import bench
from nibblecore.hdl.config import FPGA, PAPER, TINY, LtoaqConfig

DENSITIES = (0, 0.01, 0.03, 0.1, 0.5, 1)


@dataclass(frozen=True)
class Shape:
    """Arguments of the decoder and of the encoder."""

    lanes: int
    bus_bits: int
    elements_bits: int
    run_bits: int
    runs_per_cycle: int

    @classmethod
    def of(cls, config: LtoaqConfig) -> "Shape":
        return cls(
            config.bus_bits // 4, config.bus_bits, 2 * (config.tile.bit_length() - 1), config.run_bits, config.runs_per_cycle
        )

    @property
    def slots(self) -> int:
        return self.bus_bits // self.run_bits

    @property
    def escape(self) -> int:
        return 2**self.run_bits - 1

    @property
    def max_run_beats(self) -> int:
        return -(-(2 + 2**self.elements_bits) // self.slots)

    def word_lanes(self, eight_bit: bool) -> int:
        return self.lanes // 2 if eight_bit else self.lanes

    def words(self, eight_bit: bool) -> int:
        return 2**self.elements_bits // self.word_lanes(eight_bit)

    def segment(self, codes: Sequence[int], count: int | None = None) -> list[int]:
        """Beats of any codes, with any count."""
        count = len(codes) if count is None else count
        codes = [count & self.escape, count >> self.run_bits, *codes]
        return [bench.pack(codes[i : i + self.slots], self.run_bits) for i in range(0, len(codes), self.slots)]


SHAPES = {
    "tiny": Shape.of(TINY),
    "fpga": Shape.of(FPGA),
    "paper": Shape.of(PAPER),
    # Seven codes in a beat, of which two at a time do not come out even; left-over bits; lanes = 2^run_bits.
    "narrow": Shape(8, 23, 5, 3, 2),
}
