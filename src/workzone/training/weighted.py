"""Drawing images by weight: exact totals, the same order on every rank, and shares that follow losses."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler


def draw_rows(weights: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """(count,) rows in random order, row i ``count * w_i / sum(w)`` times, rounded up or down.

    Systematic sampling: one random offset, then equal steps along the running sum of the weights. Its totals are exact
    up to less than one draw per row, where independent draws spread like a Poisson count.

    Args:
        weights: (N,) not negative, not all 0.
        count: number of draws.
        generator: source of randomness, None for torch's own.

    Raises:
        ValueError: weights that are negative, not finite, or all 0.
    """
    w = weights.detach().to("cpu", torch.float64)
    if w.ndim != 1 or not bool(torch.isfinite(w).all()) or bool((w < 0).any()) or float(w.sum()) <= 0:
        raise ValueError("weights must be (N,), finite, not negative and not all 0")
    known = w.nonzero().squeeze(1)
    # Rows are shuffled first, or neighbours could never be drawn for the same offset.
    known = known[torch.randperm(len(known), generator=generator)]
    running = w[known].cumsum(0)
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    steps = (torch.arange(count, dtype=torch.float64) + offset) / count * running[-1]
    place = torch.searchsorted(running, steps, right=True).clamp_max(len(known) - 1)
    return known[place][torch.randperm(count, generator=generator)]


class WeightedSampler(Sampler[int]):
    """Weighted draws for one of several ranks.

    All ranks draw one and the same epoch order from (seed, epoch), and each takes every ``world``-th place of it: the
    shares are disjoint places, equally long, and together the whole epoch. The number of draws is rounded up to a
    multiple of ``world`` by drawing more, not by repeating, so that the totals stay exact. Lightning must not replace
    it: ``Trainer(use_distributed_sampler=False)``.

    Args:
        weights: (N,) relative rates, not negative.
        samples: draws of an epoch over all ranks, None for N.
        rank: of this process.
        world: number of processes.
        seed: the same on all ranks.
    """

    def __init__(
        self, weights: Tensor, *, samples: int | None = None, rank: int = 0, world: int = 1, seed: int = 0
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not one of {world}")
        if samples is not None and samples < 1:
            raise ValueError("samples must be at least 1")
        self.weights = weights.detach().to("cpu", torch.float64)
        wanted = len(weights) if samples is None else samples
        self.total = -(-wanted // world) * world
        self.rank, self.world, self.seed, self.epoch = rank, world, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; call it on all ranks alike."""
        self.epoch = epoch

    def update(self, weights: Tensor) -> None:
        """New weights from the next epoch on; they must be the same on all ranks."""
        if len(weights) != len(self.weights):
            raise ValueError("the number of weights must stay the same")
        self.weights = weights.detach().to("cpu", torch.float64)

    def __len__(self) -> int:
        return self.total // self.world

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = draw_rows(self.weights, self.total, generator)
        yield from order[self.rank :: self.world].tolist()


def adapt_shares(shares: Tensor, losses: Tensor, *, rate: float = 1.0, floor: float = 0.05) -> Tensor:
    """(K,) new shares of K data sets: those with more loss get more, by exponentiated gradient.

    ``share * exp(rate * (loss - mean loss))``, normalised, then mixed with equal shares so that none falls below
    ``floor / K``; the step of group DRO (Sagawa et al. 2020, arXiv 1911.08731). A set with wrong labels has a high
    loss as well and would be drawn more often: look at its label errors first.

    Args:
        shares: (K,) present shares, summing to 1.
        losses: (K,) mean loss of each set.
        rate: size of the step.
        floor: part that is always shared equally.
    """
    if shares.shape != losses.shape or not 0 <= floor <= 1:
        raise ValueError("shares and losses must be (K,), floor 0 to 1")
    raised = shares.double() * torch.exp(rate * (losses.double() - losses.double().mean()))
    return (1.0 - floor) * raised / raised.sum() + floor / len(shares)


def set_weights(base: Tensor, sets: Tensor, shares: Tensor) -> Tensor:
    """(N,) weights that give set k the share ``shares[k]`` and keep the proportions of ``base`` within each set."""
    sums = torch.zeros(len(shares), dtype=torch.float64).index_add_(0, sets.cpu(), base.cpu().double())
    if bool((sums <= 0).any()):
        raise ValueError("every set must have weight")
    return base.cpu().double() * (shares.double() / sums)[sets.cpu()]
