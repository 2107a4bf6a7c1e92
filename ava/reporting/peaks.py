"""What a device could compute at most, from its maker's datasheet: the denominator of the MFU.

Datasheets print several figures for one unit. Those here are dense (makers print twice as much for matrices of which
half is zero), of matrix products that accumulate in fp32 as torch's do, and at the clock the maker names. A device that
is not in the table, a slice of one (MIG) and a processor have no figure: an MFU over a guess would be worse than none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8")


@dataclass(frozen=True)
class Peak:
    """One device, as torch sees it.

    Attributes:
        name: pattern of what `torch.cuda.get_device_name` says.
        tflops: precision -> dense TFLOP/s (TOP/s for int8); what is missing the device cannot do, or its maker does not
            say.
        source: where the figures stand.
    """

    name: str
    tflops: dict[str, float]
    source: str


def _tensor_cores(fp32: float, tf32: float, half: float, eight: float | None = None) -> dict[str, float]:
    """The precisions of NVIDIA's tensor cores since Ampere; `eight` only where there is fp8."""
    wide = {"fp32": fp32, "tf32": tf32, "bf16": half, "fp16": half}
    return wide | ({} if eight is None else {"fp8": eight, "int8": eight})


_VOLTA = "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf"
_H100 = "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"
_H200 = "https://www.nvidia.com/en-us/data-center/h200/"
_BLACKWELL = "https://resources.nvidia.com/en-us-blackwell-architecture/datasheet"
_INSTINCT = "https://www.amd.com/content/dam/amd/en/documents/instinct-"

PEAKS: tuple[Peak, ...] = (
    Peak(r"V100-SXM2", {"fp32": 15.7, "fp16": 125}, _VOLTA),
    Peak(r"V100-PCIE", {"fp32": 14, "fp16": 112}, _VOLTA),
    Peak(r"V100S-PCIE", {"fp32": 16.4, "fp16": 130}, _VOLTA),
    Peak(
        r"\bT4\b", {"fp32": 8.1, "fp16": 65, "int8": 130},
        "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf",
    ),
    Peak(
        r"\bA10\b", _tensor_cores(31.2, 62.5, 125) | {"int8": 250},
        "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a10/pdf/a10-datasheet.pdf",
    ),
    # Some A100 of other sizes have another number of multiprocessors.
    Peak(
        r"\bA100\b.*\b[48]0GB", _tensor_cores(19.5, 156, 312) | {"int8": 624},
        "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
        "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
    ),
    Peak(r"\bL4\b", _tensor_cores(30.3, 60, 121, 242.5), "https://www.nvidia.com/en-us/data-center/l4/"),
    Peak(r"\bL40S\b", _tensor_cores(91.6, 183, 362.05, 733), "https://www.nvidia.com/en-us/data-center/l40s/"),
    # GeForce cards accumulate 16-bit and fp8 products in fp32 at half the rate of fp16.
    Peak(
        r"\bRTX 4090$", _tensor_cores(82.6, 82.6, 165.2) | {"fp8": 330.3, "int8": 660.6},
        "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
    ),
    Peak(
        r"\bRTX 5090$", _tensor_cores(104.8, 104.8, 209.5) | {"fp8": 419, "int8": 838},
        "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf",
    ),
    Peak(r"\bH100 80GB HBM3\b", _tensor_cores(67, 494.5, 989.5, 1979), _H100),
    Peak(r"\bH100 PCIe\b", _tensor_cores(51, 378, 756.5, 1513), _H100),
    Peak(r"\bH100 NVL\b", _tensor_cores(60, 417.5, 835.5, 1670.5), _H100),
    Peak(r"\bH200$", _tensor_cores(67, 494.5, 989.5, 1979), _H200),
    Peak(r"\bH200 NVL\b", _tensor_cores(60, 417.5, 835.5, 1670.5), _H200),
    Peak(
        r"\bGH200\b", _tensor_cores(67, 494.5, 989.5, 1979),
        "https://resources.nvidia.com/en-us-grace-cpu/grace-hopper-superchip",
    ),
    Peak(r"\bB200\b", _tensor_cores(75, 1100, 2250, 4500), _BLACKWELL),
    Peak(r"\bGB200\b", _tensor_cores(80, 1250, 2500, 5000), _BLACKWELL),
    # torch sees each of its two dies as a device, the datasheet counts both.
    Peak(
        r"\bMI250X\b", {"fp32": 47.85, "bf16": 191.5, "fp16": 191.5, "int8": 191.5},
        "https://www.amd.com/en/products/accelerators/instinct/mi200/mi250x.html",
    ),
    Peak(
        r"\bMI300X\b", _tensor_cores(163.4, 653.7, 1307.4, 2614.9),
        _INSTINCT + "tech-docs/data-sheets/amd-instinct-mi300x-data-sheet.pdf",
    ),
    Peak(
        r"\bMI325X\b", _tensor_cores(163.4, 653.7, 1307.4, 2614.9),
        _INSTINCT + "tech-docs/product-briefs/instinct-mi325x-datasheet.pdf",
    ),
)  # fmt: skip


def peak_flops(device_name: str, precision: str) -> float | None:
    """The most that a device can do each second.

    Args:
        device_name: as `torch.cuda.get_device_name` says it, such as "NVIDIA H200".
        precision: one of `PRECISIONS`.

    Returns:
        Dense FLOP/s; None where the device is not in the table, or has no figure for the precision.

    Raises:
        ValueError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if "MIG" in device_name.split():
        return None
    found = next((peak for peak in PEAKS if re.search(peak.name, device_name.strip())), None)
    tflops = None if found is None else found.tflops.get(precision)
    return None if tflops is None else tflops * 1e12


def device_name(device: torch.device) -> str:
    """What `peak_flops` asks for: the accelerator's own name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
