"""From a trained model to one whose linear layers compute from integers.

    quantizer = ModelQuantizer(model, "dynamic", bits=8)
    quantized = quantizer.quantize()
    print(quantizer.report)
    quantizer.save("model.safetensors")

The caller's model is left as it is, unless `inplace=True` says otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.precision.fused_encoders import forbid_fused_encoders
from ava.optimization.precision.quantization.arithmetic import Plain
from ava.optimization.precision.quantization.backends import (
    build_layer,
    check_floats,
    choose_backend,
    copied,
    put_layers,
    with_layers,
)  # fmt: skip
from ava.optimization.precision.quantization.calibration import calibrate
from ava.optimization.precision.quantization.file import stored_tensors, write_model
from ava.optimization.precision.quantization.inputs import KEY, Inputs, of_batch, of_example
from ava.optimization.precision.quantization.options import check_calibration, check_model, check_scheme
from ava.optimization.precision.quantization.qat import (
    BITS,
    Weight,
    check_prepared,
    prepare_qat,
    scheme_of,
    without_rounding,
)  # fmt: skip
from ava.optimization.precision.quantization.readers import read_outside
from ava.optimization.precision.quantization.report import Evaluate, QuantizationReport, evaluating, measure, remarks
from ava.optimization.precision.quantization.scheme import Bits, Scheme, num_bytes
from ava.optimization.precision.quantization.selection import Selection, choose_group_size, select


class ModelQuantizer:
    """Quantizes the linear layers of a model; everything else stays as it is.

    Args:
        model: the model, on the device that is to run it.
        quantization_type: dynamic rounds inputs by the range they have in each call, static by the range they had on
            calibration data; with fewer than 8 bits dynamic rounds weights only. qat prepares for training.
        bits: of each weight.
        calibration_loader: batches, for static: see `calibrate`.
        backend: of `backends.CHOICES`; auto takes the fastest that this device has.
        group_size: for 4 and 2 bits, neighbouring weights that share a scale; None takes the largest of 128, 64 and 32
            that divides every width for 4 bits, and 32 for 2.
        inplace: change the model itself rather than a copy.
        example_inputs: of one call, to measure latency and the error of the outputs, and to find layers whose weights
            the model reads itself: (B, ...), a tuple of positional arguments, or a dict of keyword arguments. None
            takes those of the first calibration batch, and leaves all that out where there is none.
        evaluate: the caller's metrics of a model, name -> number, taken before and after on copies.
        calibration_batches: batches to look at, at most.

    Raises:
        InputError: something of it cannot be; names the remedy.

    Attributes:
        backend: what runs the quantized layers; None before.
        scheme: what was rounded to what; None before.
        report: what changed; None before.
        plain: layer -> its tensors, as `save` writes them.
    """

    def __init__(
        self, model: nn.Module, quantization_type: Literal["dynamic", "static", "qat"] = "dynamic", bits: Bits = 8,
        calibration_loader: Iterable[Any] | None = None, *, backend: Literal["auto", "torch.ao", "torchao"] = "auto",
        group_size: int | None = None, inplace: bool = False,
        example_inputs: Tensor | tuple[Any, ...] | Mapping[str, Any] | None = None,
        evaluate: Evaluate | None = None, calibration_batches: int = 32,
    ) -> None:  # fmt: skip
        self.model, self.quantization_type, self.bits = model, quantization_type, bits
        self.calibration_loader, self.backend_asked, self.group_size = calibration_loader, backend, group_size
        self.inplace, self.example_inputs, self.evaluate = inplace, example_inputs, evaluate
        self.calibration_batches = calibration_batches
        self.backend: str | None = None
        self.scheme: Scheme | None = None
        self.report: QuantizationReport | None = None
        self.plain: dict[str, Plain] = {}
        self._quantized: nn.Module | None = None
        check_model(model, evaluate, example_inputs)
        check_scheme(quantization_type, bits, group_size, backend)
        check_calibration(quantization_type, calibration_loader, calibration_batches)

    def quantize(self) -> nn.Module:
        """Quantize the model, or for qat make it round as it trains.

        Returns:
            The quantized model in evaluation mode; for qat the model to train, and then to give to `convert`.

        Raises:
            InputError: there is nothing to quantize, or something for it is missing on this machine.
        """
        check_floats(self.model)
        if self.quantization_type != "qat":
            return self._quantize(self.model, self.inplace)
        choose_backend(self.backend_asked, self._choose_scheme(self.model), _device(self.model))
        model = self.model if self.inplace else copied(self.model)
        weight: Any = next(name for name, bits in BITS.items() if bits == self.bits)
        prepare_qat(model, weight, self.group_size)
        return model

    def convert(self, model: nn.Module) -> nn.Module:
        """Make the deployable model of one that was trained with quantization_type="qat"; that one stays as it is.

        Args:
            model: what `quantize` returned, trained.

        Returns:
            A quantized copy in evaluation mode.

        Raises:
            InputError: as `quantize`, or the model was not prepared for these weights.
        """
        if self.quantization_type != "qat":
            hint = "`quantize()` is all that is needed; for training use quantization_type='qat'."
            problem = "there is nothing to convert: only qat trains a model first."
            raise InputError(problem, key="quantization_type", value=self.quantization_type, hint=hint)
        check_prepared(model, self.bits)
        return self._quantize(without_rounding(model), False, before=model)

    def save(self, path: Path | str) -> None:
        """Write the quantized model's tensors as safetensors; `load_quantized` reads them.

        Raises:
            InputError: nothing was quantized yet.
        """
        if self._quantized is None or self.scheme is None:
            raise InputError("nothing was quantized yet.", hint="Call `quantize()` first, for qat `convert(model)`.")
        write_model(Path(path), self._quantized, self.plain, self.scheme)

    def _quantize(self, model: nn.Module, inplace: bool, before: nn.Module | None = None) -> nn.Module:
        device = _device(model)
        scheme = self._choose_scheme(model)
        selection = select(model, scheme.bits, scheme.group_size)
        backend = choose_backend(self.backend_asked, scheme, device)
        with evaluating(self.model), evaluating(before or model), _forked(device):
            example, batches = self._inputs()
            ranges, selection = self._watched(model, selection, example, batches)
            plain = {name: scheme.quantize(_linear(model, name), ranges.get(name)) for name in selection.chosen}
            layers = {name: build_layer(tensors, scheme, backend, device) for name, tensors in plain.items()}
            quantized = with_layers(model, layers).eval()
            sizes = _num_bytes(model), _num_bytes(quantized, plain)
            report = QuantizationReport(
                str(scheme), backend, selection.chosen, selection.skipped, selection.share, sizes,
                notes=remarks(selection),
            )  # fmt: skip
            measure(report, _twin(before or model), _twin(quantized), example, self.evaluate)
        if inplace:
            put_layers(model, layers)
            quantized = model.eval()
        self.plain, self.scheme, self.backend, self.report = plain, scheme, backend, report
        self._quantized = quantized
        return quantized

    def _choose_scheme(self, model: nn.Module) -> Scheme:
        if self.bits == 8:
            return Scheme(8, "static" if self.quantization_type == "static" else "dynamic")
        return Scheme(self.bits, "float", self.group_size or choose_group_size(model, self.bits))

    def _inputs(self) -> tuple[Inputs | None, Iterable[Any]]:
        """An example of the inputs, and the batches to calibrate on: the loader is gone through once."""
        example = None if self.example_inputs is None else of_example(self.example_inputs)
        if self.calibration_loader is None or (example is not None and self.quantization_type != "static"):
            return example, ()
        batches = iter(self.calibration_loader)
        first = list(islice(batches, 1))
        if not first:
            hint = "Give an iterable of batches, such as a DataLoader of training data."
            raise InputError("it gave no batch.", key=KEY, value=type(self.calibration_loader).__name__, hint=hint)
        if example is None:
            example = of_batch(first[0])
        return example, chain(first, batches)

    def _watched(
        self, model: nn.Module, selection: Selection, example: Inputs | None, batches: Iterable[Any]
    ) -> tuple[dict[str, Plain], Selection]:
        """The layers' ranges where they are fixed; without those that the model reads itself or never calls."""
        if example is None and self.quantization_type != "static":
            return {}, selection
        twin = _twin(model)
        forbid_fused_encoders(twin, {name: twin.get_submodule(name) for name in selection.chosen})
        ranges: dict[str, Plain] = {}
        if self.quantization_type == "static":
            ranges = calibrate(twin, selection.chosen, batches, self.calibration_batches)
            missed = [name for name in selection.chosen if name not in ranges]
            selection = selection.without(twin, missed, "was not called on the calibration data")
        if example is not None:
            with torch.no_grad():
                read = read_outside(twin, selection.chosen, lambda: example.call(twin))
            selection = selection.without(twin, read, "has a weight that the model reads itself, past the layer")
        return ranges, selection


def convert_qat(model: nn.Module, weight: Weight, group_size: int | None = None) -> nn.Module:
    """The deployable model of one that was trained after `prepare_qat`, on the same device; the model stays as it is.

    Args:
        model: the trained model.
        weight: as it was prepared.
        group_size: as it was prepared.

    Returns:
        A quantized copy, in evaluation mode.

    Raises:
        InputError: no layer fits, or nothing here runs it.
    """
    scheme = scheme_of(model, weight, group_size)
    return ModelQuantizer(model, "qat", scheme.bits, group_size=scheme.group_size).convert(model)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def _num_bytes(model: nn.Module, plain: Mapping[str, Plain] | None = None) -> int:
    return num_bytes(list(stored_tensors(model, plain)[0].values()))


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _twin(model: nn.Module) -> nn.Module:
    """A copy to be called: calls may change buffers."""
    return copied(model).eval()


@contextmanager
def _forked(device: torch.device) -> Iterator[None]:
    """Within it random numbers of torch, numpy and Python may be drawn, and after it none were."""
    python, arrays = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(arrays)
