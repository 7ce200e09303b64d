"""The one way to apply a policy to scored images."""

from __future__ import annotations

from collections.abc import Mapping

from workzone.decisions.policies.base import Policy
from workzone.decisions.types import Decisions
from workzone.decisions.uncertainty import from_views
from workzone.predictions import FloatArray


def apply_policy(
    policy: Policy,
    probability: FloatArray,
    view_log_odds: FloatArray | None,
    stages: Mapping[str, FloatArray] | None = None,
) -> Decisions:
    """Decisions for probabilities (N,), with the measures of the views (N, V) where the policy needs them.

    Args:
        policy: fitted policy.
        probability: (N,) calibrated probabilities of all views.
        view_log_odds: (N, V), or None where the views were not scored.
        stages: log-odds (N,) of the earlier stages of a cascade, by the names in ``policy.needs``.

    Raises:
        DataError: the policy needs measures, and the views or the stages were not scored.
    """
    if stages is not None and policy.needs and set(policy.needs) <= set(stages):
        return policy.decide(probability, stages)
    if not policy.needs or view_log_odds is None:
        return policy.decide(probability)
    return policy.decide(probability, from_views(probability, view_log_odds))
