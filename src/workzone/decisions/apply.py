"""The one way to apply a policy to scored images."""

from __future__ import annotations

from workzone.decisions.policies.base import Policy
from workzone.decisions.types import Decisions
from workzone.decisions.uncertainty import from_views
from workzone.predictions import FloatArray


def apply_policy(policy: Policy, probability: FloatArray, view_log_odds: FloatArray | None) -> Decisions:
    """Decisions for probabilities (N,), with the measures of the views (N, V) where the policy needs them.

    Raises:
        DataError: the policy needs measures and the views were not scored.
    """
    if not policy.needs or view_log_odds is None:
        return policy.decide(probability)
    return policy.decide(probability, from_views(probability, view_log_odds))
