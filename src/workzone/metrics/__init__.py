"""Figures of merit, their intervals and what a calibrated model would show. Needs numpy; scipy for intervals."""

from __future__ import annotations

from workzone.metrics.bootstrap import Interval, bootstrap, replicates
from workzone.metrics.calibration import (
    BrierParts,
    EceVerdict,
    NullBand,
    ReliabilityCurve,
    brier,
    brier_decomposition,
    brier_skill,
    ece,
    ece_classwise,
    ece_debiased,
    ece_null_band,
    ece_verdict,
    mce,
    nll,
    reliability_curve,
    smooth_ece,
    spiegelhalter_z,
)
from workzone.metrics.cascade import (
    CascadeFigures,
    Deferral,
    DeferralCurve,
    cascade_figures,
    deferral_curve,
    deferral_figures,
)
from workzone.metrics.classification import (
    Confusion,
    Threshold,
    accuracy,
    at_prevalence,
    auroc,
    average_precision,
    balanced_accuracy,
    best_mcc_threshold,
    confusion,
    f05,
    f1,
    f_beta,
    fnr,
    fpr,
    mcc,
    precision,
    recall,
    specificity,
)
from workzone.metrics.differences import holm
from workzone.metrics.fairness import (
    Gap,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalised_odds_difference,
    fairness_gaps,
)
from workzone.metrics.proportions import clopper_pearson, clopper_pearson_upper, n_needed_for, wilson
from workzone.metrics.registry import METRICS, Metric, evaluate, evaluate_rows
from workzone.metrics.selective import (
    RiskCoverage,
    augrc,
    auprc_f,
    aurc,
    auroc_f,
    coverage_at_risk,
    e_augrc,
    e_aurc,
    risk_at_coverage,
    risk_coverage_curve,
)

__all__ = [
    "BrierParts", "CascadeFigures", "Confusion", "Deferral", "DeferralCurve", "EceVerdict", "Gap", "Interval",
    "METRICS", "Metric", "NullBand", "ReliabilityCurve", "RiskCoverage", "Threshold", "accuracy", "at_prevalence",
    "augrc", "auprc_f", "aurc", "auroc", "auroc_f", "average_precision", "balanced_accuracy", "best_mcc_threshold",
    "bootstrap", "brier", "brier_decomposition", "brier_skill", "cascade_figures", "clopper_pearson",
    "clopper_pearson_upper", "confusion", "coverage_at_risk", "deferral_curve", "deferral_figures",
    "demographic_parity_difference", "e_augrc", "e_aurc", "ece", "ece_classwise", "ece_debiased", "ece_null_band",
    "ece_verdict", "equal_opportunity_difference", "equalised_odds_difference", "evaluate", "evaluate_rows", "f05",
    "f1", "f_beta", "fairness_gaps", "fnr", "fpr", "holm", "mcc", "mce", "n_needed_for", "nll", "precision", "recall",
    "reliability_curve", "replicates", "risk_at_coverage", "risk_coverage_curve", "smooth_ece", "specificity",
    "spiegelhalter_z", "wilson",
]  # fmt: skip
