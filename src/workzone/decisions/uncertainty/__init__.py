"""Named measures of uncertainty (N,), from views, stochastic passes or evidence; numpy only, one interface."""

from __future__ import annotations

from workzone.decisions.uncertainty.entropy import binary_entropy, entropy, require_entropy_threshold
from workzone.decisions.uncertainty.evidence import from_evidence
from workzone.decisions.uncertainty.names import CERTAINTY, MAX_PROBABILITY, MEASURES, SEVEN
from workzone.decisions.uncertainty.samples import from_samples
from workzone.decisions.uncertainty.views import embedding_variance, from_views, p_norm_max_logit

__all__ = [
    "CERTAINTY",
    "MAX_PROBABILITY",
    "MEASURES",
    "SEVEN",
    "binary_entropy",
    "embedding_variance",
    "entropy",
    "from_evidence",
    "from_samples",
    "from_views",
    "p_norm_max_logit",
    "require_entropy_threshold",
]
