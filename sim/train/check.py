"""The accelerator with the golden model beside it: every result is compared bit for bit."""

from typing import Any

import numpy as np
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.host.ltoaq.accelerator import Accelerator, RawHandle, TensorHandle
from numpy.typing import NDArray

__all__ = ["CheckedAccelerator", "Mismatch"]


class Mismatch(AssertionError):
    """The accelerator's result is not the golden model's."""


class CheckedAccelerator:
    """Runs commands on an accelerator and, with `check`, the same on the golden model, from the same inputs.

    Raises `Mismatch` at the first difference.

    Parameters
    ----------
    accelerator : Accelerator
    check : bool

    Members
    -------
    place : str
        Where in the computation the next command belongs, for messages: step and layer.
    comparisons : int
        Numbers compared so far: elements, statistics and sums.
    """

    def __init__(self, accelerator: Accelerator, check: bool = True) -> None:
        self.accelerator, self.check = accelerator, check
        self.place = ""
        self.comparisons = 0
        self._expected: dict[TensorHandle | RawHandle, Any] = {}

    def free(self) -> None:
        self.accelerator.free()
        self._expected.clear()

    def upload_raw(self, matrix: NDArray[np.int32]) -> RawHandle:
        handle = self.accelerator.upload_raw(matrix)
        self._expected[handle] = matrix
        return handle

    def download(self, handle: RawHandle) -> NDArray[np.int32]:
        return self._expected[handle] if handle in self._expected else self.accelerator.download(handle)

    def gemm(
        self, operation: str, a: TensorHandle, w: TensorHandle, *, a_transposed: bool = False, w_transposed: bool = False
    ) -> RawHandle:
        """The 32-bit product; `operation` names it in messages. Overflow is an error: training never comes near it."""
        raw = self.accelerator.gemm(a, w, a_transposed=a_transposed, w_transposed=w_transposed)
        if raw.overflow:
            raise OverflowError(f"{self.place}, {operation}: an accumulator overflowed")
        if self.check:
            operands = self._expected[a], self._expected[w]
            expected, _ = golden.gemm(*operands, self.accelerator.config, a_transposed, w_transposed)
            self._compare(operation, expected, self.accelerator.download(raw))
            self._expected[raw] = expected
        return raw

    def quantize(self, operation: str, raw: RawHandle, quantizer: QuantizerParameters) -> TensorHandle:
        handle = self.accelerator.quantize(raw, quantizer)
        if self.check:
            expected, statistics = golden.quantize(self._expected[raw], quantizer)
            self._compare_tensors(operation, expected, handle)
            for name, value in statistics._asdict().items():
                self._compare_number(operation, name, value, getattr(handle.statistics, name))
            self._expected[handle] = expected
        return handle

    def threshold_grad(self, operation: str, raw: RawHandle, gradient: RawHandle, quantizer: QuantizerParameters) -> int:
        total = self.accelerator.threshold_grad(raw, gradient, quantizer)
        if self.check:
            expected = golden.threshold_gradient(self._expected[raw], self._expected[gradient], quantizer)
            self._compare_number(operation, "the sum", expected, total)
        return total

    def _compare_tensors(self, operation: str, expected: OaqTensor, handle: TensorHandle) -> None:
        try:
            got = self.accelerator.download(handle)
        except ValueError as error:
            raise Mismatch(f"{self.place}, {operation}: the tensor in memory is malformed: {error}") from error
        self._compare(operation, expected.codes, got.codes, expected.outlier, got.outlier)

    def _compare(
        self, operation: str, expected: NDArray, got: NDArray, expected_outlier: Any = False, got_outlier: Any = False
    ) -> None:
        differs = (expected != got) | (expected_outlier != got_outlier)
        self.comparisons += got.size
        if not differs.any():
            return
        element = tuple(int(i) for i in np.argwhere(differs)[0])

        def show(values: NDArray, outlier: Any) -> str:
            text = str(values[element])
            return text if outlier is False else f"{'outlier' if outlier[element] else 'normal'} code {text}"

        raise Mismatch(
            f"{self.place}, {operation}: element {list(element)} is {show(got, got_outlier)}, expected "
            f"{show(expected, expected_outlier)} ({int(differs.sum())} of {differs.size} elements differ)"
        )

    def _compare_number(self, operation: str, name: str, expected: int, got: int) -> None:
        self.comparisons += 1
        if got != expected:
            raise Mismatch(f"{self.place}, {operation}: {name} is {got}, expected {expected}")
