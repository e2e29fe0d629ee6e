"""Checks a descriptor whole, before anything is written, and works out what the units need."""

from typing import Any

from amaranth import Array, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import LtoaqConfig

from .descriptor import DESCRIPTOR_WORDS, FIELDS, Opcode
from .errors import ErrorCode
from .job import GemmJob, MatrixShape, OperandJob, OutputJob, RawJob

__all__ = ["DescriptorChecker", "descriptor_layout"]


def descriptor_layout() -> data.FlexibleLayout:
    """All fields of the table, at their bits."""
    return data.FlexibleLayout(32 * DESCRIPTOR_WORDS, {f.name: data.Field(f.width, 32 * f.word + f.low) for f in FIELDS})


def _reserved_mask() -> int:
    covered = sum(((1 << f.width) - 1) << (32 * f.word + f.low) for f in FIELDS)
    return ((1 << 32 * DESCRIPTOR_WORDS) - 1) & ~covered


class DescriptorChecker(wiring.Component):
    """Takes ``start``, answers ``done`` with the lowest error code that applies, and the jobs of the units.

    One multiplier computes the sizes of all regions in turn.

    Latency: ``done`` comes 20 cycles after ``start``. Throughput: a descriptor at a time; the next ``start`` the cycle after ``done`` at the
    earliest.

    Parameters
    ----------
    config : LtoaqConfig

    Attributes
    ----------
    conditions : dict of str to ErrorCode
        What a descriptor must not do, by names that the golden twin has too; known once the checker has been elaborated.

    Members
    -------
    descriptor : In(descriptor_layout())
        Constant from ``start`` on.
    window_base, window_last : In(32)
        First and last byte that may be touched.
    start : In(1)
        Not from one start until its ``done``.
    done : Out(1)
        One cycle.
    code : Out(8)
        With ``done``: an `ErrorCode`.
    gemm : Out(GemmJob)
    a, w : Out(OperandJob)
        ``run_beats`` is left 0: it comes from the tensors' headers.
    target : Out(OutputJob)
    raw0, raw1 : Out(RawJob)
    shape : Out(MatrixShape)
    q_max : Out(8)
        The quantizer's clip of residuals. These jobs hold from ``done`` on while ``descriptor`` does.
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        self.conditions: dict[str, ErrorCode] = {}
        super().__init__(
            {
                "descriptor": In(descriptor_layout()),
                "window_base": In(32),
                "window_last": In(32),
                "start": In(1),
                "done": Out(1),
                "code": Out(8),
                "gemm": Out(GemmJob),
                "a": Out(OperandJob),
                "w": Out(OperandJob),
                "target": Out(OutputJob),
                "raw0": Out(RawJob),
                "raw1": Out(RawJob),
                "shape": Out(MatrixShape),
                "q_max": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, d = self.config, self.descriptor
        s = config.tile
        self._is_gemm, self._is_quantize, self._is_gradient = (Signal(name=f"is_{n}") for n in ("gemm", "quantize", "gradient"))
        self._uses_out, self._uses_raw0 = Signal(name="uses_out"), Signal(name="uses_raw0")
        m.d.comb += [
            self._is_gemm.eq(d.opcode == Opcode.GEMM),
            self._is_quantize.eq(d.opcode == Opcode.QUANTIZE),
            self._is_gradient.eq(d.opcode == Opcode.THRESHOLD_GRAD),
            self._uses_out.eq((self._is_gemm & ~d.raw_output) | self._is_quantize),
            self._uses_raw0.eq(self._is_quantize | self._is_gradient | (self._is_gemm & d.raw_output)),
        ]
        self._chunked = Signal(name="chunked", reset_less=True)
        m_tiles, n_tiles, k_tiles = (Signal(16, name=f"{n}_tiles", reset_less=True) for n in "mnk")
        # Registered, as all else in the machine hangs on them: they are there a cycle after the descriptor.
        m.d.sync += [
            tiles.eq((size[:16] + (s - 1)) >> (s - 1).bit_length())
            for tiles, size in ((m_tiles, d.m), (n_tiles, d.n), (k_tiles, d.k))
        ]
        m.d.sync += self._chunked.eq(d.k_tiles != k_tiles)
        m.d.comb += [
            self.gemm.eight_bit.eq(d.a_eight_bit),
            self.gemm.m_tiles.eq(m_tiles),
            self.gemm.n_tiles.eq(n_tiles),
            self.gemm.k.eq(d.k),
            self.gemm.k_tiles.eq(k_tiles),
            self.gemm.a_group.eq(d.a_group),
            self.gemm.w_group.eq(d.w_group),
            self.gemm.chunk_tiles.eq(d.k_tiles),
            self.gemm.chunked.eq(self._chunked),
            self.shape.m.eq(d.m),
            self.shape.n.eq(d.n),
            self.shape.m_tiles.eq(m_tiles),
            self.shape.n_tiles.eq(n_tiles),
            self.raw0.address.eq(d.raw0_address),
            self.raw0.pitch.eq(d.raw0_pitch),
            self.raw1.address.eq(d.raw1_address),
            self.raw1.pitch.eq(d.raw1_pitch),
            self.target.codes.eq(d.out_codes),
            self.target.runs.eq(d.out_runs),
            self.target.run_stride.eq(d.out_run_stride),
        ]
        self._clip(m)
        bad = self._static(m)
        bad[ErrorCode.OUT_OF_WINDOW], bad[ErrorCode.BAD_TILING] = self._regions(m, m_tiles, n_tiles, k_tiles)
        for code in sorted(bad, reverse=True):
            with m.If(bad[code]):
                m.d.comb += self.code.eq(int(code))
        return m

    def _clip(self, m: Module) -> None:
        d = self.descriptor
        full = Signal(8)
        room = Signal(10)
        m.d.comb += [
            full.eq(Mux(d.out_eight_bit, Mux(d.out_signed, 127, 255), Mux(d.out_signed, 7, 15))),
            room.eq((Mux(d.out_eight_bit, self.config.value_max(8), self.config.value_max(4)) - d.out_threshold) >> d.out_k),
            self.q_max.eq(Mux(room < full, room, full)),
        ]

    def _static(self, m: Module) -> dict[ErrorCode, Signal]:
        """Everything that needs no arithmetic on regions."""
        d, bus = self.descriptor, self.config.bus_bytes
        gemm, quantize, gradient = self._is_gemm, self._is_quantize, self._is_gradient
        uses_out, uses_raw0 = self._uses_out, self._uses_raw0
        quantizes = uses_out | gradient
        found: dict[ErrorCode, Any] = {}

        def refuse(code: ErrorCode, name: str, when: Any) -> None:
            found[code] = found.get(code, 0) | when
            self.conditions[name] = code

        def fields_of(name: str, *parts: str) -> list[str]:
            return [f"{name}_{part}" for part in parts]

        refuse(ErrorCode.BAD_OPCODE, "opcode", ~(gemm | quantize | gradient))
        refuse(ErrorCode.RESERVED_BITS, "reserved", (d.as_value() & _reserved_mask()).any())
        form, storage, raw = (
            ("eight_bit", "signed", "k", "threshold", "header"),
            ("codes", "runs", "run_stride"),
            ("address", "pitch"),
        )
        users = (
            (gemm, [name for t in "aw" for name in fields_of(t, *form, *storage, "transposed", "group")]),
            (gemm, ["k", "k_tiles", "raw_output"]),
            (quantizes, [*fields_of("out", *form), "alpha", "multiplier", "shift", "relu"]),
            (uses_out, fields_of("out", *storage)),
            (uses_raw0, fields_of("raw0", *raw)),
            (gradient, fields_of("raw1", *raw)),
        )
        for used, fields in users:
            for name in fields:
                refuse(ErrorCode.RESERVED_BITS, f"{name} unused", ~used & (d[name] != 0))

        every = Const(1)
        strides = ((gemm, "a_run_stride"), (gemm, "w_run_stride"), (uses_out, "out_run_stride"))
        for used, name in ((every, "m"), (every, "n"), (gemm, "k"), *strides):
            refuse(ErrorCode.ZERO_SIZE, f"{name} zero", used & (d[name] == 0))
            refuse(ErrorCode.ZERO_SIZE, f"{name} wide", used & d[name][16:].any())

        line = Signal(20)
        m.d.comb += line.eq((4 * d.n[:16] + bus - 1) & ~(bus - 1))
        self._line_bytes = line
        grains = {
            f"{t}_{part}": grain for t in ("a", "w", "out") for part, grain in (("header", 32), ("codes", bus), ("runs", bus))
        }
        grains |= {f"{name}_{part}": bus for name in ("raw0", "raw1") for part in raw}
        for name, grain in grains.items():
            refuse(ErrorCode.MISALIGNED, f"{name} askew", d[name][: (grain - 1).bit_length()].any())
        for used, name in ((uses_raw0, "raw0_pitch"), (gradient, "raw1_pitch")):
            refuse(ErrorCode.MISALIGNED, f"{name} short", used & (d[name] < line))

        for used, t in ((gemm, "a"), (gemm, "w"), (quantizes, "out")):
            threshold = d[f"{t}_threshold"]
            highest = Mux(d[f"{t}_eight_bit"], Mux(d[f"{t}_signed"], 127, 255), Mux(d[f"{t}_signed"], 7, 15))
            refuse(ErrorCode.BAD_FORMAT, f"{t}_threshold zero", used & (threshold == 0))
            refuse(ErrorCode.BAD_FORMAT, f"{t}_threshold high", used & (threshold > highest))
        refuse(ErrorCode.BAD_FORMAT, "widths differ", gemm & (d.a_eight_bit != d.w_eight_bit))
        refuse(ErrorCode.BAD_FORMAT, "alpha zero", quantizes & (d.alpha == 0))
        refuse(ErrorCode.BAD_FORMAT, "alpha high", quantizes & d.alpha[31])
        refuse(ErrorCode.BAD_FORMAT, "multiplier zero", quantizes & (d.multiplier == 0))
        refuse(ErrorCode.BAD_FORMAT, "shift high", quantizes & (d.shift > 39))

        bad = {code: Signal(name=f"bad_{code.name.lower()}") for code in found}
        m.d.comb += [bad[code].eq(when) for code, when in found.items()]
        return bad

    def _regions(self, m: Module, m_tiles: Signal, n_tiles: Signal, k_tiles: Signal) -> tuple[Signal, Signal]:
        """Steps through the regions; returns (some region leaves the window, the tiling is bad)."""
        config, d = self.config, self.descriptor
        regions = [f"{t}_{part}" for t in ("a", "w", "out") for part in ("codes", "runs", "header")] + [
            "raw0_address",
            "raw1_address",
        ]
        groups = [f"{t}_group {why}" for t in "aw" for why in ("zero", "of a part", "high")]
        self.conditions |= {f"{name} {side}": ErrorCode.OUT_OF_WINDOW for name in regions for side in ("below", "beyond")}
        self.conditions |= dict.fromkeys(["k_tiles zero", "k_tiles high", *groups], ErrorCode.BAD_TILING)
        tile_shift = (config.tile_beats(4) * config.bus_bytes - 1).bit_length()
        bus_shift = (config.bus_bytes - 1).bit_length()
        x = Signal(16)
        y = Signal(32)
        product = Signal(48)
        m.d.sync += product.eq(x * y)
        base = Signal(32)
        size = Signal(48)
        check = Signal()
        outside = Signal(reset_less=True)
        bad_tiling = Signal(reset_less=True)
        over = Signal(49)
        m.d.comb += over.eq(base + size)
        with m.If(check & ((base < self.window_base) | (over > self.window_last + 1))):
            m.d.sync += outside.eq(1)

        # Tensor by tensor: number of tiles; its codes; its segments; its header; the pitch of its rows of segments.
        tensor = Signal(2, reset_less=True)
        phase = Signal(3, reset_less=True)
        names = ("a", "w", "out")
        used = Array((self._is_gemm, self._is_gemm, self._uses_out))[tensor]
        rows = Array((m_tiles, n_tiles, m_tiles))[tensor]
        cols = Array((k_tiles, k_tiles, n_tiles))[tensor]
        pitch = Array((Mux(d.a_transposed, m_tiles, k_tiles), Mux(d.w_transposed, n_tiles, k_tiles), n_tiles))[tensor]
        eight_bit = Array(d[f"{n}_eight_bit"] for n in names)[tensor]
        header, codes, runs, stride = (
            Array(d[f"{n}_{f}"] for n in names)[tensor] for f in ("header", "codes", "runs", "run_stride")
        )
        runs_pitch = [Signal(32, name=f"{n}_runs_pitch", reset_less=True) for n in names]
        raw = Signal(reset_less=True)
        raw_used = Mux(raw, self._is_gradient, self._uses_raw0)
        sub_words = Signal(32)
        m.d.comb += sub_words.eq((d.k_tiles * (config.tile // config.block)) << d.a_eight_bit)
        half = config.bank_words // 2
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [tensor.eq(0), phase.eq(0), raw.eq(0), outside.eq(0), bad_tiling.eq(0)]
                m.next = "TENSOR"
            with m.State("TENSOR"):
                m.d.sync += phase.eq(phase + 1)
                with m.Switch(phase):
                    with m.Case(0):
                        m.d.comb += [x.eq(rows), y.eq(cols)]
                    with m.Case(1):
                        m.d.comb += [
                            x.eq(stride),
                            y.eq(product),
                            base.eq(codes),
                            check.eq(used),
                            size.eq((product << tile_shift) << eight_bit),
                        ]
                    with m.Case(2):
                        m.d.comb += [base.eq(runs), size.eq(product << bus_shift), check.eq(used), x.eq(pitch), y.eq(stride)]
                    with m.Case(3):
                        m.d.comb += [base.eq(header), size.eq(32), check.eq(used | ((tensor == 2) & self._is_gradient))]
                        for i in range(3):
                            with m.If(tensor == i):
                                m.d.sync += runs_pitch[i].eq(product << bus_shift)
                        m.d.sync += [phase.eq(0), tensor.eq(tensor + 1)]
                        with m.If(tensor == 2):
                            m.next = "RAW"
            with m.State("RAW"):
                m.d.sync += phase.eq(phase + 1)
                m.d.comb += [
                    x.eq(d.m - 1),
                    y.eq(Mux(raw, d.raw1_pitch, d.raw0_pitch)),
                    base.eq(Mux(raw, d.raw1_address, d.raw0_address)),
                    size.eq(product + self._line_bytes),
                    check.eq((phase == 1) & raw_used),
                ]
                with m.If(phase == 1):
                    m.d.sync += [phase.eq(0), raw.eq(1)]
                    with m.If(raw):
                        m.next = "TILING"
            with m.State("TILING"):
                m.d.sync += phase.eq(phase + 1)
                m.d.comb += [
                    x.eq(Mux(phase == 0, d.a_group, d.w_group)),
                    y.eq(sub_words * Mux(phase == 0, config.tile // config.rows, config.tile // config.output_cols)),
                ]
                with m.If((phase != 0) & (product > half)):
                    m.d.sync += bad_tiling.eq(self._is_gemm)
                with m.If(phase == 2):
                    with m.If(
                        self._is_gemm
                        & (
                            (d.a_group == 0)
                            | (d.w_group == 0)
                            | (d.k_tiles == 0)
                            | (d.k_tiles > k_tiles)
                            | (self._chunked & ((d.a_group != 1) | (d.w_group != 1)))
                        )
                    ):
                        m.d.sync += bad_tiling.eq(1)
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"

        for operand, name, i, across in ((self.a, "a", 0, m_tiles), (self.w, "w", 1, n_tiles)):
            tile_bytes, row_bytes = Signal(32, name=f"{name}_tile_bytes"), Signal(32, name=f"{name}_row_bytes")
            run_bytes = Signal(32, name=f"{name}_run_bytes")
            turned = d[f"{name}_transposed"]
            m.d.comb += [
                tile_bytes.eq(Const(1 << tile_shift) << d[f"{name}_eight_bit"]),
                row_bytes.eq((Mux(turned, across, k_tiles) << tile_shift) << d[f"{name}_eight_bit"]),
                run_bytes.eq(d[f"{name}_run_stride"] << bus_shift),
                operand.transposed.eq(turned),
                operand.codes.eq(d[f"{name}_codes"]),
                operand.runs.eq(d[f"{name}_runs"]),
                operand.codes_k_step.eq(Mux(turned, row_bytes, tile_bytes)),
                operand.codes_panel_step.eq(Mux(turned, tile_bytes, row_bytes)),
                operand.runs_k_step.eq(Mux(turned, runs_pitch[i], run_bytes)),
                operand.runs_panel_step.eq(Mux(turned, run_bytes, runs_pitch[i])),
            ]
        m.d.comb += [
            self.target.codes_row_step.eq((n_tiles << tile_shift) << d.out_eight_bit),
            self.target.runs_tile_step.eq(d.out_run_stride << bus_shift),
            self.target.runs_row_step.eq(runs_pitch[2]),
        ]
        return outside, bad_tiling
