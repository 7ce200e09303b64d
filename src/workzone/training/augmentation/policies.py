"""Published augmentation policies at stated severities, by torchvision.

AutoAugment: Cubuk et al. 2019 (arXiv 1805.09501), the policy found for ImageNet. RandAugment: Cubuk et al. 2020
(arXiv 1909.13719), two operations at severity m of 10. TrivialAugmentWide: Mueller and Hutter 2021 (arXiv 2103.10158),
one operation at a random strength. AugMix: Hendrycks et al. 2020 (arXiv 1912.02781) at severity m of 10, without its
consistency loss. AutoAugment and TrivialAugment have no severity of their own. All of them move colours further than
the presets do: posterise, solarise and colour shifts change the orange that cones and signs are painted in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_LEVELS = 10


def _auto() -> Any:
    from torchvision.transforms import v2

    return v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)


def _trivial() -> Any:
    from torchvision.transforms import v2

    return v2.TrivialAugmentWide()


def _rand(severity: int) -> Callable[[], Any]:
    def make() -> Any:
        from torchvision.transforms import v2

        return v2.RandAugment(num_ops=2, magnitude=severity, num_magnitude_bins=_LEVELS + 1)

    return make


def _mix(severity: int) -> Callable[[], Any]:
    def make() -> Any:
        from torchvision.transforms import v2

        return v2.AugMix(severity=severity)

    return make


POLICIES: dict[str, Callable[[], Any]] = {
    "autoaugment": _auto,
    "trivialaugment": _trivial,
    **{f"randaugment_{m}": _rand(m) for m in (3, 5, 7)},
    **{f"augmix_{m}": _mix(m) for m in (3, 5, 7)},
}
"""Policies by name; the number is the severity."""


@lru_cache(maxsize=len(POLICIES))
def _made(name: str) -> Any:
    return POLICIES[name]()


def apply_policy(images: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """Copies of ``images`` (N, 3, S, S) in [0, 1], each changed by its own draw of policy ``name``.

    Raises:
        ValueError: unknown name.
    """
    if name not in POLICIES:
        raise ValueError(f"there is no augmentation {name!r}")
    seed = int(torch.randint(2**62, (), generator=generator))
    # The policies draw from torch's global generator and are meant for pictures of 8 bits.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bytes_ = (images.detach().cpu() * 255.0).round().to(torch.uint8)
        changed = torch.stack([_made(name)(picture) for picture in bytes_])
    return (changed.to(images.dtype) / 255.0).to(images.device)
