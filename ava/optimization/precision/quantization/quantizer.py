"""From a trained model to one whose linear layers compute from integers.

    quantizer = ModelQuantizer(model, "dynamic", bits=8)
    quantized = quantizer.quantize()
    print(quantizer.report)
    quantizer.save("model.safetensors")

The caller's model is left as it is, unless `inplace=True` says otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ava.errors import InputError, nearest
from ava.optimization.precision.quantization.arithmetic import Plain
from ava.optimization.precision.quantization.backends import build_layer, choose_backend, put_layers, with_layers
from ava.optimization.precision.quantization.calibration import KEY, calibrate, inputs_of
from ava.optimization.precision.quantization.file import stored_tensors, write_model
from ava.optimization.precision.quantization.qat import BITS, Weight, prepare_qat, scheme_of, without_rounding
from ava.optimization.precision.quantization.report import Evaluate, QuantizationReport, evaluating, measure, remarks
from ava.optimization.precision.quantization.scheme import Bits, Scheme, num_bytes
from ava.optimization.precision.quantization.selection import GROUP_SIZES, Selection, choose_group_size, select

TYPES = ("dynamic", "static", "qat")


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
        example_inputs: (B, ...), to measure latency and the error of the outputs; None takes those of the first
            calibration batch, and leaves both out where there is none.
        evaluate: the caller's metrics of a model, taken before and after.
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
        group_size: int | None = None, inplace: bool = False, example_inputs: Tensor | None = None,
        evaluate: Evaluate | None = None, calibration_batches: int = 32,
    ) -> None:  # fmt: skip
        self.model, self.quantization_type, self.bits = model, quantization_type, bits
        self.calibration_loader, self.asked, self.group_size = calibration_loader, backend, group_size
        self.inplace, self.example_inputs, self.evaluate = inplace, example_inputs, evaluate
        self.calibration_batches = calibration_batches
        self.backend: str | None = None
        self.scheme: Scheme | None = None
        self.report: QuantizationReport | None = None
        self.plain: dict[str, Plain] = {}
        self._quantized: nn.Module | None = None
        self._check()

    def quantize(self) -> nn.Module:
        """Quantize the model, or for qat make it round as it trains.

        Returns:
            The quantized model in evaluation mode; for qat the model to train, and then to give to `convert`.

        Raises:
            InputError: there is nothing to quantize, or something for it is missing on this machine.
        """
        if self.quantization_type != "qat":
            return self._quantize(self.model, self.inplace)
        model = self.model if self.inplace else copy.deepcopy(self.model)
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
            InputError: as `quantize`.
        """
        return self._quantize(without_rounding(model), False, before=model)

    def save(self, path: Path | str) -> None:
        """Write the quantized model's tensors as safetensors; `load_quantized` reads them.

        Raises:
            InputError: nothing was quantized yet.
        """
        if self._quantized is None or self.scheme is None:
            raise InputError("nothing was quantized yet.", hint="Call `quantize()` first, for qat `convert(model)`.")
        write_model(Path(path), self._quantized, self.plain, self.scheme)

    def _check(self) -> None:
        if self.quantization_type not in TYPES:
            problem, hint = f"there are: {', '.join(TYPES)}.", nearest(self.quantization_type, TYPES)
            raise InputError(problem, key="quantization_type", value=self.quantization_type, hint=hint)
        if self.bits not in BITS.values():
            raise InputError("weights can have 8, 4 or 2 bits.", key="bits", value=self.bits)
        if self.group_size is not None and (self.bits == 8 or self.group_size not in GROUP_SIZES):
            problem = f"groups are of {', '.join(map(str, GROUP_SIZES))}, for 4 or 2 bits; with 8 a row has one scale."
            raise InputError(problem, key="group_size", value=self.group_size)
        if self.quantization_type == "static" and self.bits != 8:
            problem = "static rounds inputs to 8 bits beside weights of 8; with fewer, only weights are rounded."
            raise InputError(problem, key="bits", value=self.bits, hint="Use quantization_type='dynamic', or bits=8.")
        if self.quantization_type == "static" and self.calibration_loader is None:
            problem = "static quantization needs data to find the range of each layer's inputs."
            hint = "Give batches of training data, or use quantization_type='dynamic', which needs none."
            raise InputError(problem, key=KEY, value=None, hint=hint)

    def _quantize(self, model: nn.Module, inplace: bool, before: nn.Module | None = None) -> nn.Module:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        scheme = self._choose_scheme(model)
        selection = select(model, scheme.bits, scheme.group_size)
        backend = choose_backend(self.asked, scheme, device)
        ranges, selection = self._calibrated(model, selection)
        plain = {name: scheme.quantize(_linear(model, name), ranges.get(name)) for name in selection.chosen}
        layers = {name: build_layer(tensors, scheme, backend, device) for name, tensors in plain.items()}
        quantized = with_layers(model, layers).eval()
        self.plain, self.scheme, self.backend, self._quantized = plain, scheme, backend, quantized
        self.report = self._describe(model, quantized, selection)
        measure(self.report, before or model, quantized, self._example(), self.evaluate)
        if inplace:
            put_layers(model, layers)
            self._quantized = quantized = model.eval()
        return quantized

    def _choose_scheme(self, model: nn.Module) -> Scheme:
        if self.bits == 8:
            return Scheme(8, "static" if self.quantization_type == "static" else "dynamic")
        return Scheme(self.bits, "float", self.group_size or choose_group_size(model, self.bits))

    def _calibrated(self, model: nn.Module, selection: Selection) -> tuple[dict[str, Plain], Selection]:
        """The layers' ranges where they are fixed; a layer without one is not quantized."""
        if self.quantization_type != "static" or self.calibration_loader is None:
            return {}, selection
        with evaluating(model):
            ranges = calibrate(model, selection.chosen, self.calibration_loader, self.calibration_batches)
        reached = tuple(name for name in selection.chosen if name in ranges)
        if not reached:
            raise InputError("no linear layer was called on the calibration data.", key=KEY)
        missed = {n: "was not called on the calibration data" for n in selection.chosen if n not in ranges}
        weights = {name: _linear(model, name).weight.numel() for name in selection.chosen}
        share = selection.share * sum(weights[name] for name in reached) / sum(weights.values())
        return ranges, Selection(reached, selection.skipped | missed, share)

    def _describe(self, model: nn.Module, quantized: nn.Module, selection: Selection) -> QuantizationReport:
        before = num_bytes(list(stored_tensors(model)[0].values()))
        after = num_bytes(list(stored_tensors(quantized, self.plain)[0].values()))
        return QuantizationReport(
            str(self.scheme), str(self.backend), selection.chosen, selection.skipped, selection.share, (before, after),
            notes=remarks(selection),
        )  # fmt: skip

    def _example(self) -> Tensor | None:
        if self.example_inputs is not None or self.calibration_loader is None:
            return self.example_inputs
        batch = next(iter(self.calibration_loader), None)
        keeps_names = isinstance(batch, dict) and "inputs" not in batch
        return None if batch is None or keeps_names else inputs_of(batch)


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
