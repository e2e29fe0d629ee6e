"""The accelerator as a functional model behind the transport's interface: same registers, descriptors and memory, no time."""

import struct
from collections.abc import Mapping

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.descriptor import DESCRIPTOR_BYTES, HEADER_BYTES, Opcode, unpack
from nibblecore.hdl.ltoaq.command.errors import ErrorCode
from nibblecore.hdl.ltoaq.registers import ID, REGISTERS, config_words
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor, PackedTensor, tiles
from nibblecore.sim.golden.ltoaq import top
from nibblecore.sim.host.functional import ModelTransport
from numpy.typing import NDArray

from .descriptor import check, check_address

__all__ = ["FunctionalTransport"]


class _Abandoned(Exception):
    """A command that ends with an error."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class FunctionalTransport(ModelTransport):
    """Executes every descriptor on the golden model the moment it is pushed.

    Results, headers and error codes are those of the RTL. Of the counters, ARRAY_CYCLES is exact (words that enter
    the array), CYCLES and the stalls stay 0: there is no time here. The queue is never full.

    Parameters
    ----------
    config : LtoaqConfig
    memory_size : int
        Bytes.
    """

    def __init__(self, config: LtoaqConfig, memory_size: int = 1 << 24) -> None:
        self.config = config
        super().__init__(REGISTERS, ID, config_words(config), memory_size)

    def _command(self, name: str, value: int) -> None:
        if name == "PUSH":
            self._run(value)
            return
        bits = REGISTERS["CONTROL"].unpack(value)
        if bits["clear_error"]:
            self._registers["ERROR"] = 0
            self._set("STATUS", error=0, overflow=0)
        if bits["clear_counters"]:
            self._registers.update(DONE=0, ABANDONED=0, CYCLES=0, ARRAY_CYCLES=0, LOAD_STALLS=0, OUTPUT_STALLS=0)

    def _run(self, address: int) -> None:
        window = self._registers["WINDOW_BASE"], self._registers["WINDOW_LAST"]
        try:
            _require(*check_address(address, window))
            raw = self.read_memory(address, DESCRIPTOR_BYTES)
            _require(*check(raw, self.config, window))
            d = unpack(raw)
            run = {Opcode.GEMM: self._gemm, Opcode.QUANTIZE: self._quantize, Opcode.THRESHOLD_GRAD: self._threshold_grad}
            run[Opcode(d["opcode"])](d)
        except _Abandoned as abandoned:
            self.detail = str(abandoned)
            if not self._registers["ERROR"]:
                number = self._registers["DONE"] + self._registers["ABANDONED"] & 0xFFFF
                self._registers["ERROR"] = REGISTERS["ERROR"].pack(code=abandoned.code, sequence=number)
                self._set("STATUS", error=1)
            self._set("IRQ_STATUS", error=1)
            self._count("ABANDONED")
            return
        self._count("DONE")
        if d["interrupt"]:
            self._set("IRQ_STATUS", done=1)

    def _count(self, name: str) -> None:
        self._registers[name] = (self._registers[name] + 1) & 0xFFFF_FFFF

    def _gemm(self, d: Mapping[str, int]) -> None:
        m, n, k = d["m"], d["n"], d["k"]
        a = self._tensor(d, "a", (k, m) if d["a_transposed"] else (m, k))
        w = self._tensor(d, "w", (k, n) if d["w_transposed"] else (n, k))
        product, overflow = top.gemm(a, w, self.config, bool(d["a_transposed"]), bool(d["w_transposed"]))
        if overflow:
            self._set("STATUS", overflow=1)
        self._registers["ARRAY_CYCLES"] = (self._registers["ARRAY_CYCLES"] + self._array_cycles(m, n, k, a.bits)) & 0xFFFF_FFFF
        if d["raw_output"]:
            for i, row in enumerate(product):
                self.write_memory(d["raw0_address"] + i * d["raw0_pitch"], row.astype("<i4").tobytes())
        else:
            self._write_tensor(d, product, overflow)

    def _array_cycles(self, m: int, n: int, k: int, bits: int) -> int:
        s = self.config.tile
        passes = -(-m // s) * -(-n // s) * (s // self.config.rows) * (s // self.config.output_cols)
        return passes * -(-k // self.config.word_elements(bits))

    def _quantize(self, d: Mapping[str, int]) -> None:
        self._write_tensor(d, self._matrix(d, "raw0"), overflow=False)

    def _threshold_grad(self, d: Mapping[str, int]) -> None:
        total = top.threshold_gradient(self._matrix(d, "raw0"), self._matrix(d, "raw1"), _parameters(d))
        self.write_memory(d["out_header"], struct.pack("<4Iq2I", 0, 0, 0, 0, total, 0, 0))

    def _matrix(self, d: Mapping[str, int], name: str) -> NDArray[np.int32]:
        address, pitch = d[f"{name}_address"], d[f"{name}_pitch"]
        rows = [np.frombuffer(self.read_memory(address + i * pitch, 4 * d["n"]), "<i4") for i in range(d["m"])]
        return np.stack(rows).astype(np.int32)

    def _tensor(self, d: Mapping[str, int], name: str, shape: tuple[int, int]) -> OaqTensor:
        config = self.config
        run_stride = d[f"{name}_run_stride"]
        run_beats = int.from_bytes(self.read_memory(d[f"{name}_header"], 4), "little")
        if not 1 <= run_beats <= min(run_stride, config.max_run_beats):
            raise _Abandoned(ErrorCode.MALFORMED_RUNS, f"header of {name} says run_beats = {run_beats}")
        bits = 8 if d[f"{name}_eight_bit"] else 4
        count = tiles(shape, config)[0] * tiles(shape, config)[1]
        packed = PackedTensor(
            self.read_memory(d[f"{name}_codes"], count * config.tile_beats(bits) * config.bus_bytes),
            self.read_memory(d[f"{name}_runs"], count * run_stride * config.bus_bytes),
            run_beats,
        )
        try:
            return OaqTensor.unpack(
                config,
                shape,
                packed,
                run_stride,
                bits=bits,
                signed=bool(d[f"{name}_signed"]),
                threshold=d[f"{name}_threshold"],
                k=d[f"{name}_k"],
            )
        except ValueError as error:
            raise _Abandoned(ErrorCode.MALFORMED_RUNS, f"tensor {name}: {error}") from error

    def _write_tensor(self, d: Mapping[str, int], y: NDArray[np.int32], overflow: bool) -> None:
        tensor, statistics = top.quantize(y, _parameters(d))
        try:
            packed = tensor.pack(self.config, d["out_run_stride"])
        except ValueError as error:
            raise _Abandoned(ErrorCode.RUN_OVERFLOW, str(error)) from error
        self.write_memory(d["out_codes"], packed.codes)
        self.write_memory(d["out_runs"], packed.runs)
        header = struct.pack("<8I", packed.run_beats, *statistics, 0, 0, overflow, 0)
        assert len(header) == HEADER_BYTES
        self.write_memory(d["out_header"], header)


def _require(code: ErrorCode, detail: str) -> None:
    if code != ErrorCode.NONE:
        raise _Abandoned(code, detail)


def _parameters(d: Mapping[str, int]) -> QuantizerParameters:
    return QuantizerParameters(
        alpha=d["alpha"],
        multiplier=d["multiplier"],
        shift=d["shift"],
        k=d["out_k"],
        threshold=d["out_threshold"],
        bits=8 if d["out_eight_bit"] else 4,
        signed=bool(d["out_signed"]),
        relu=bool(d["relu"]),
    )
