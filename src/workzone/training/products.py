"""Matrix products whose factors may be rounded to bfloat16, on processors that have instructions for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch

ProductPrecision = Literal["auto", "fp32", "bf16"]


def may_round(asked: ProductPrecision, device: torch.device) -> bool:
    """Whether products on ``device`` may be rounded: with ``auto`` where a CPU has instructions for bfloat16."""
    if device.type != "cpu" or asked == "fp32":
        return False
    return asked == "bf16" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextlib.contextmanager
def products(asked: ProductPrecision, device: torch.device) -> Iterator[None]:
    """Within, large float32 products on a CPU are left to oneDNN, which may round their factors to bfloat16.

    It does where that is faster, and else multiplies float32 by kernels of its own. Weights, sums and everything else
    stay float32.
    """
    backend: Any = torch.backends.mkldnn
    before = backend.matmul.fp32_precision
    if may_round(asked, device):
        backend.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.matmul.fp32_precision = before
