"""Names of the uncertainty measures; they are stored in bundles, so they do not change."""

from __future__ import annotations

MAX_PROBABILITY = "max_probability"
ENTROPY = "entropy"
VIEW_VARIANCE = "view_variance"
MAX_MINUS_MEAN = "max_minus_mean"
VIEW_DISAGREEMENT = "view_disagreement"
EMBEDDING_VARIANCE = "embedding_variance"
EXPECTED_ENTROPY = "expected_entropy"
MUTUAL_INFORMATION = "mutual_information"
P_NORM_MAX_LOGIT = "p_norm_max_logit"
VACUITY = "vacuity"

SEVEN = (
    MAX_PROBABILITY,
    VIEW_VARIANCE,
    ENTROPY,
    MAX_MINUS_MEAN,
    VIEW_DISAGREEMENT,
    EMBEDDING_VARIANCE,
    EXPECTED_ENTROPY,
)
"""The seven measures of an image that the failure gate was planned with."""
MEASURES = (*SEVEN, MUTUAL_INFORMATION, P_NORM_MAX_LOGIT, VACUITY)
CERTAINTY = frozenset({MAX_PROBABILITY})
"""The measures that rise with certainty; the others rise with doubt."""
