"""The wide and the fused scheme in one table: utilization on their Verilog, area, path, and area × cycles.

    nibblecore compare --liberty nangate45_typ.lib.gz

Utilization is the share of its 4-bit peak that an array reaches when passes of K elements follow one another, with random
codes and outliers, after every result was compared with the golden model: of the wide engine (operand decoders, issue of the
passes and array) and of the fused array, both with operands at hand (`nibblecore.sim.measure.utilization`). Fused arrays of other FIFO
depths are given by the cycle-stepped model, which agrees with the Verilog. Areas are those of the arrays with their drain, FIFOs
and edges, divided by PEs (`nibblecore.sim.measure.area`), without a library in NAND2 equivalents; the path is the longest inside a module.

    area × cycles = area a PE / (lanes · utilization),  relative to the first fused array.
"""

from dataclasses import dataclass
from pathlib import Path

from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.array.wide_array import WideArray
from nibblecore.hdl.ltoaq.fused.fused_array import FusedArray
from nibblecore.sim import outputs
from nibblecore.sim.progress import ticking
from nibblecore.sim.refusal import Refusal
from tqdm import tqdm

from .area import Area, Liberty, measure
from .utilization import build_fused, build_wide, measure_fused, measure_wide, model_fused, wide_config

__all__ = ["Scheme", "main", "report"]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A column of the table.

    Parameters
    ----------
    rows, cols, lanes : int
        Processing elements and the 4-bit products each forms in a cycle.
    depth : int or None
        Of a fused cluster's FIFOs; None for the wide scheme.
    modelled : bool
        Utilization comes from the model alone.
    """

    rows: int
    cols: int
    lanes: int = 4
    depth: int | None = None
    modelled: bool = False

    @property
    def title(self) -> str:
        if self.depth is not None:
            return f"fused, d = {self.depth}"
        return "wide" if self.lanes == 4 else f"wide, {self.lanes} lanes"

    def area(self, liberty: Liberty | None) -> Area:
        if self.depth is None:
            return measure(WideArray(self.rows, self.cols, lanes=self.lanes), self.title, liberty=liberty)
        return measure(FusedArray(self.rows, self.cols, self.depth), self.title, liberty=liberty)

    def build(self, elements: int, passes: int) -> None:
        """Build what `utilization` runs, which takes minutes the first time."""
        if self.depth is None:
            build_wide(self.config(elements, passes))
        elif not self.modelled:
            build_fused(self.rows, self.cols, self.depth)

    def utilization(self, ratio: float, *, elements: int, passes: int, seed: int) -> float:
        if self.depth is None:
            config = self.config(elements, passes)
            return measure_wide(config, elements=elements, passes=passes, ratio=ratio, seed=seed)
        arguments = {"words": elements // 4, "passes": passes, "seed": seed}
        if self.modelled:
            return model_fused(self.rows, self.cols, self.depth, ratio=ratio, **arguments)
        return measure_fused(self.rows, self.cols, self.depth, ratio=ratio, **arguments)[0]

    def config(self, elements: int, passes: int) -> LtoaqConfig:
        """Of the wide scheme, to measure its utilization. Raises ValueError if there is no such array."""
        return wide_config(self.rows, self.cols, lanes=self.lanes, elements=elements, passes=passes)


def report(
    columns: list[Scheme], shares: dict[float, list[float]], areas: list[Area], *, elements: int, liberty: Liberty | None
) -> str:
    """The table as Markdown; `shares`: utilizations by outlier ratio, a value a column."""
    pes = columns[0].rows * columns[0].cols
    size = [area.nand2 if area.square_microns is None else area.square_microns for area in areas]
    per_product = [total / scheme.lanes for total, scheme in zip(size, columns, strict=True)]
    reference = next(i for i, scheme in enumerate(columns) if scheme.depth is not None)
    unit = "NAND2 equivalents of generic gates" if liberty is None else f"µm², {liberty.path.name}"

    def row(title: str, cells: list[str]) -> str:
        return f"| {title} | {' | '.join(cells)} |"

    lines = [
        f"{columns[0].rows} × {columns[0].cols} PEs, 4-bit codes, K = {elements}, passes back to back; every result checked.",
        "",
        row("", [scheme.title for scheme in columns]),
        "| --- " + "| ---: " * len(columns) + "|",
    ]
    for ratio, values in shares.items():
        cells = [f"{value:.3f}{' *' if scheme.modelled else ''}" for value, scheme in zip(values, columns, strict=True)]
        lines.append(row(f"utilization, {100 * ratio:g} % outliers", cells))
    lines.append(row(f"area a PE, drain and FIFOs in it, {unit}", [f"{total / pes:,.0f}" for total in size]))
    if liberty:
        paths = [area.path_ps for area in areas]
        lines.append(row("longest path in a module, ps", ["–" if path is None else f"{path:,.0f}" for path in paths]))
        lines.append(row("Fmax it allows, MHz", ["–" if path is None else f"{1e6 / path:,.0f}" for path in paths]))
    for ratio, values in shares.items():
        costs = [area / value for area, value in zip(per_product, values, strict=True)]
        title = f"area × cycles against {columns[reference].title}, {100 * ratio:g} % outliers"
        lines.append(row(title, [f"{cost / costs[reference]:.2f}" for cost in costs]))
    if any(scheme.modelled for scheme in columns):
        lines += ["", "\\* by the cycle-stepped model."]
    return "\n".join(lines) + "\n"


def main(
    *,
    rows: int,
    cols: int,
    lanes: list[int],
    depths: list[int],
    modelled: list[int],
    elements: int,
    passes: int,
    ratios: list[float],
    seed: int,
    liberty: Path | None,
    markdown: Path | None,
) -> int:
    """``nibblecore compare``."""
    library = Liberty.read(liberty) if liberty else None
    columns = [Scheme(rows=rows, cols=cols, lanes=number) for number in lanes]
    columns += [Scheme(rows=rows, cols=cols, depth=depth) for depth in depths]
    columns += [Scheme(rows=rows, cols=cols, depth=depth, modelled=True) for depth in modelled]
    for scheme in columns[: len(lanes)]:
        try:
            scheme.config(elements, passes)
        except ValueError as error:
            raise Refusal("rows", f"there is no wide array of {rows} × {cols} PEs of {scheme.lanes} lanes: {error}") from None

    with tqdm(total=len(columns) * (2 + len(ratios)), unit="step", disable=None, leave=False) as bar, ticking(bar):
        shares: dict[float, list[float]] = {ratio: [] for ratio in ratios}
        areas = []
        for scheme in columns:
            bar.set_postfix_str(f"{scheme.title}: area")
            areas.append(scheme.area(library))
            bar.update()
            bar.set_postfix_str(f"{scheme.title}: compiling its simulator")
            scheme.build(elements, passes)
            bar.update()
            for ratio, values in shares.items():
                bar.set_postfix_str(f"{scheme.title}: {100 * ratio:g} % outliers")
                values.append(scheme.utilization(ratio, elements=elements, passes=passes, seed=seed))
                bar.update()
    text = report(columns, shares, areas, elements=elements, liberty=library)
    print(text, end="")
    if markdown:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        outputs.write(markdown, text.encode())
    return 0
