"""Configurations: one frozen dataclass a machine, and the named presets that every tool uses."""

import re
from dataclasses import dataclass, replace
from math import isqrt
from operator import index
from typing import Literal

__all__ = [
    "CAMBRICONQ",
    "FPGA",
    "PAPER",
    "PAPER_EIGHT",
    "PRESETS",
    "TINY",
    "CambriconqConfig",
    "DramConfig",
    "LtoaqConfig",
    "fused",
    "whole",
    "without_engine",
]


def whole(field: str, value: object, least: int, most: int | None = None, error: type[ValueError] = ValueError) -> int:
    """`value` as an int, numpy's integers too. Raises `error`, which names `field` and the range, unless it is one of them."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = index(value)  # type: ignore[arg-type]
        if number < least or (most is not None and number > most):
            raise TypeError
    except TypeError:
        legal = f"at least {least}" if most is None else f"{least}..{most}"
        raise error(f"{field} must be a whole number, {legal}, not {value!r}") from None
    return number


_NAME_LETTERS = 64


def _see_name(name: object) -> None:
    """It becomes part of modules' and files' names."""
    if not isinstance(name, str) or not re.fullmatch(rf"[A-Za-z_][A-Za-z0-9_]{{0,{_NAME_LETTERS - 1}}}", name, re.ASCII):
        shown = repr(name) if len(repr(name)) <= 2 * _NAME_LETTERS else f"{repr(name)[:_NAME_LETTERS]}…"
        raise ValueError(
            f"config {shown}: the name must be a letter or _, then letters, digits and _, {_NAME_LETTERS} of them at most in all"
        )


def _see_whole(config: object, name: str, fields: dict[str, int]) -> None:
    """Fields with the least value of each; makes them ints."""
    for field, least in fields.items():
        try:
            object.__setattr__(config, field, whole(field, getattr(config, field), least))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class LtoaqConfig:
    """Parameters of the LT-OAQ accelerator.

    Parameters
    ----------
    name : str
        Name of the preset, part of no module's behaviour: a letter or ``_``, then letters, digits and ``_``, at most 64 in all.
    rows, cols : int
        Processing elements. Powers of two.
    tile : int
        Edge S of the storage tile, a power of two up to 128, a multiple of ``rows`` and of ``output_cols``.
    bus_bytes : int
        Width of the AXI4 data bus, 8 or 32.
    bank_words : int
        Words in each bank of the operand buffer, both halves together; a power of two.
    outliers : str
        ``"wide"``: operands are decoded to integers at the array's edge, fixed timing.
        ``"fused"``: two neighbouring PEs fuse for outliers, elastic timing (Section IV-A of the paper).
    lanes : int
        Products of 4-bit codes a processing element forms in a cycle, 4 or 8; of 8-bit codes a quarter of that. Eight lanes are
        built for the wide scheme only and take a 32-byte bus, so that a word of a bank holds a word of the array.
    paired : bool
        Two products share a multiplier of 18 × 18 bits, for FPGAs whose multipliers are that wide; results and times are the same. With four
        lanes and the wide scheme only.
    fifo_depth : int
        Beats in each operand FIFO of a fused cluster, at least 2.
    run_bits : int
        Width of a run-length code, at most 15.
    runs_per_cycle : int
        Run-length codes the decoder and the encoder handle in one cycle.
    queue_depth : int
        Commands the queue holds, a power of two up to 128.
    id_bits : int
        Width of the IDs of ``m_axi``, 0..32, for interconnects that want them; all are 0. No ID ports if 0.

    Raises ValueError for anything else, with the field.
    """

    name: str
    rows: int
    cols: int
    tile: int
    bus_bytes: int
    bank_words: int
    outliers: Literal["wide", "fused"] = "wide"
    lanes: int = 4
    paired: bool = False
    fifo_depth: int = 4
    run_bits: int = 6
    runs_per_cycle: int = 1
    queue_depth: int = 4
    id_bits: int = 0

    ACCUMULATOR_BITS = 32

    def __post_init__(self) -> None:
        _see_name(self.name)
        sizes = (
            "rows",
            "cols",
            "tile",
            "bus_bytes",
            "bank_words",
            "lanes",
            "fifo_depth",
            "run_bits",
            "runs_per_cycle",
            "queue_depth",
        )
        _see_whole(self, f"config {self.name!r}", {**dict.fromkeys(sizes, 1), "id_bits": 0})

        def require(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(f"config {self.name!r}: {message}")

        for field in ("rows", "cols", "tile", "bank_words", "queue_depth", "runs_per_cycle"):
            value = getattr(self, field)
            require(value > 0 and value & (value - 1) == 0, f"{field} must be a power of two, not {value}")
        # What CONFIG0, CONFIG1 and the queue's level in STATUS can show, and AXI4's interconnects carry.
        for field, most in (("tile", 128), ("run_bits", 15), ("queue_depth", 128), ("id_bits", 32)):
            require(getattr(self, field) <= most, f"{field} must be at most {most}, not {getattr(self, field)}")
        require(self.bus_bytes in (8, 32), f"bus_bytes must be 8 or 32, not {self.bus_bytes}")
        require(self.outliers in ("wide", "fused"), f"outliers must be 'wide' or 'fused', not {self.outliers!r}")
        require(self.lanes in (4, 8), f"lanes must be 4 or 8, not {self.lanes}")
        require(self.lanes == 4 or not self.fused, "eight lanes need outliers='wide'")
        require(isinstance(self.paired, bool), f"paired must be True or False, not {self.paired!r}")
        require(not self.paired or (self.lanes == 4 and not self.fused), "paired products need four lanes and outliers='wide'")
        require(self.lanes <= self.block, f"{self.lanes} lanes need a 32-byte bus")
        require(self.fifo_depth >= 2, f"fifo_depth must be at least 2, not {self.fifo_depth}")
        for edge, value in (("rows", self.rows), ("output columns", self.output_cols)):
            require(value >= self.block, f"{edge} must be at least the block edge {self.block}, not {value}")
            require(value <= self.tile, f"{edge} must not exceed the tile edge {self.tile}, not {value}")
        require(2 ** (2 * self.run_bits) > 2 * self.tile**2, f"run_bits {self.run_bits} cannot count a tile's codes")
        require(
            self.bank_words >= 4 * self.tile // self.block * (self.tile // min(self.rows, self.output_cols)),
            "bank_words must hold two tiles of 8-bit codes",
        )

    @property
    def fused(self) -> bool:
        return self.outliers == "fused"

    @property
    def output_cols(self) -> int:
        """Columns of outputs: a PE each, or a cluster of two PEs each in the fused scheme."""
        return self.cols // 2 if self.fused else self.cols

    @property
    def bus_bits(self) -> int:
        return 8 * self.bus_bytes

    @property
    def block(self) -> int:
        """Edge B of a block: one bus beat holds B × B 4-bit codes."""
        return isqrt(self.bus_bits // 4)

    def value_max(self, bits: int) -> int:
        """Largest operand magnitude the array multiplies, for codes of `bits` bits."""
        return {4: 31, 8: 1023}[bits]

    def word_elements(self, bits: int) -> int:
        """Elements along K in one word of the array, for codes of `bits` bits."""
        return {4: self.lanes, 8: self.lanes // 4}[bits]

    def tile_beats(self, bits: int) -> int:
        """Bus beats of one tile's codes."""
        return (self.tile // self.block) ** 2 * bits // 4

    @property
    def run_slots(self) -> int:
        """Run-length codes in one bus beat."""
        return self.bus_bits // self.run_bits

    @property
    def max_run_codes(self) -> int:
        """Codes in the longest possible segment: every element an outlier."""
        return self.tile**2

    @property
    def max_run_beats(self) -> int:
        """Beats of the longest possible segment, count included."""
        return -(-(2 + self.max_run_codes) // self.run_slots)


def fused(config: LtoaqConfig) -> LtoaqConfig:
    """The same machine with the paper's fused clusters; PEs are added until its outputs fill a block."""
    cols = max(config.cols, 2 * config.block)
    return replace(config, name=config.name + "_fused", outliers="fused", cols=cols, paired=False)


TINY = LtoaqConfig(name="tiny", rows=4, cols=4, tile=8, bus_bytes=8, bank_words=256)
FPGA = LtoaqConfig(name="fpga", rows=8, cols=8, tile=8, bus_bytes=8, bank_words=1024, runs_per_cycle=2, paired=True)
PAPER = LtoaqConfig(name="paper", rows=32, cols=32, tile=32, bus_bytes=32, bank_words=2048, runs_per_cycle=8)
PAPER_EIGHT = replace(PAPER, name="paper_eight", lanes=8)

PRESETS = {c.name: c for c in (TINY, FPGA, PAPER, PAPER_EIGHT, fused(TINY), fused(FPGA), fused(PAPER))}


@dataclass(frozen=True, kw_only=True)
class DramConfig:
    """Banks of memory with row buffers, as the engine beside the memory sees them.

    A *page* is what a row of a bank holds. Pages go round the banks: byte address = ((row · banks + bank) · columns + column) · 4.

    Parameters
    ----------
    banks, rows, columns : int
        Banks, at least 8; rows of a bank; 32-bit words of a row. Powers of two.
    rcd, rp, ras, wr : int
        Cycles at least from ACTIVATE to the first READ or WRITE, from PRECHARGE to ACTIVATE, from ACTIVATE to PRECHARGE, and from
        WRITE to PRECHARGE. All at least 2. The defaults are DDR3-1600's at 500 MHz.
    """

    banks: int = 8
    rows: int = 1 << 14
    columns: int = 256
    rcd: int = 7
    rp: int = 7
    ras: int = 18
    wr: int = 8

    def __post_init__(self) -> None:
        _see_whole(self, "dram", dict.fromkeys(("banks", "rows", "columns", "rcd", "rp", "ras", "wr"), 0))
        for field, least in (("banks", 8), ("rows", 2), ("columns", 2)):
            value = getattr(self, field)
            if value < least or value & (value - 1):
                raise ValueError(f"{field} must be a power of two, at least {least}, not {value}")
        for field in ("rcd", "rp", "ras", "wr"):
            if getattr(self, field) < 2:
                raise ValueError(f"{field} must be at least 2 cycles, not {getattr(self, field)}")
        if self.words > 1 << 30:
            raise ValueError(f"{self.words} words are more than 32-bit addresses reach")

    @property
    def pages(self) -> int:
        return self.banks * self.rows

    @property
    def words(self) -> int:
        return self.pages * self.columns


@dataclass(frozen=True, kw_only=True)
class CambriconqConfig:
    """Parameters of Cambricon-Q.

    A configuration is legal for the functional model and the compiler. The hardware (`cambriconq.top.Accelerator`) takes only 8 to 128
    rows and 16 to 64 columns, at most twice as many as rows; NBin and SB of four lines or more, NBout of four rows of ``rows / 4`` words or
    more.

    Parameters
    ----------
    name : str
        Name of the preset, part of no module's behaviour: a letter or ``_``, then letters, digits and ``_``, at most 64 in all.
    rows, cols : int
        Rows N of the PE array, one accumulator each, and columns M, the values of a vector. Powers of two, at least 4 and 8.
    nbin_bytes, sb_bytes, nbout_bytes : int
        Capacities of the buffers, powers of two, at least 64; NBin and SB hold lines of ``cols / 2`` bytes, NBout holds FP32 words.
    dram : DramConfig or None
        Memory whose engine updates weights where they lie; without it the update runs over the bus.
    id_bits : int
        Width of the IDs of ``m_axi``, 0..32, for interconnects that want them; all are 0. No ID ports if 0.
    vector_lanes : int
        Elements that vector instructions take at a time where they are neighbours: a power of two, at most ``rows / 4``. Special functions
        take one.

    Raises ValueError for anything else, with the field.
    """

    name: str
    rows: int
    cols: int
    nbin_bytes: int
    sb_bytes: int
    nbout_bytes: int
    dram: DramConfig | None = DramConfig()
    id_bits: int = 0
    vector_lanes: int = 1

    def __post_init__(self) -> None:
        _see_name(self.name)
        _see_whole(
            self,
            f"config {self.name!r}",
            dict.fromkeys(("rows", "cols", "nbin_bytes", "sb_bytes", "nbout_bytes", "id_bits", "vector_lanes"), 0),
        )
        if self.dram is not None and not isinstance(self.dram, DramConfig):
            raise ValueError(f"config {self.name!r}: dram must be a DramConfig or None, not {self.dram!r}")
        for field, least in (("rows", 4), ("cols", 8), ("nbin_bytes", 64), ("sb_bytes", 64), ("nbout_bytes", 64)):
            value = getattr(self, field)
            if value < least or value & (value - 1):
                raise ValueError(f"config {self.name!r}: {field} must be a power of two, at least {least}, not {value}")
        if self.id_bits > 32:
            raise ValueError(f"config {self.name!r}: id_bits must be at most 32, not {self.id_bits}")
        together = self.vector_lanes
        if not 1 <= together <= max(self.nbout_lanes, 1) or together & (together - 1):
            raise ValueError(f"config {self.name!r}: vector_lanes must be a power of two up to {self.nbout_lanes}, not {together}")

    @property
    def line_bytes(self) -> int:
        """Bytes of a line, and of a beat of the data bus."""
        return self.cols // 2

    @property
    def bus_bytes(self) -> int:
        return self.line_bytes

    @property
    def beat_words(self) -> int:
        """FP32 words of a beat: as many are moved and quantized in a cycle."""
        return self.bus_bytes // 4

    @property
    def nbin_lines(self) -> int:
        return self.nbin_bytes // self.line_bytes

    @property
    def sb_lines(self) -> int:
        return self.sb_bytes // self.line_bytes

    @property
    def nbout_lanes(self) -> int:
        """Words of a row of NBout: an accumulator gives a result every fourth cycle at most."""
        return self.rows // 4

    @property
    def nbout_words(self) -> int:
        return self.nbout_bytes // 4


def without_engine(config: CambriconqConfig) -> CambriconqConfig:
    """The same machine with its weight update over the bus (the paper's ablation)."""
    return replace(config, name=config.name + "_bus", dram=None)


_CAMBRICONQ = (
    CambriconqConfig(name="tiny", rows=8, cols=16, nbin_bytes=1 << 14, sb_bytes=1 << 14, nbout_bytes=1 << 16, vector_lanes=2),
    CambriconqConfig(name="fpga", rows=16, cols=16, nbin_bytes=1 << 16, sb_bytes=1 << 16, nbout_bytes=1 << 17, vector_lanes=4),
    CambriconqConfig(name="paper", rows=64, cols=64, nbin_bytes=1 << 18, sb_bytes=1 << 19, nbout_bytes=1 << 18, vector_lanes=8),
)
CAMBRICONQ = {config.name: config for size in _CAMBRICONQ for config in (size, without_engine(size))}
"""Presets of Cambricon-Q by name."""
