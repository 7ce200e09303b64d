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
    "METRICS", "BrierParts", "Confusion", "EceVerdict", "Interval", "Metric", "NullBand", "ReliabilityCurve",
    "RiskCoverage", "Threshold", "accuracy", "at_prevalence", "augrc", "auprc_f", "aurc", "auroc", "auroc_f",
    "average_precision", "balanced_accuracy", "best_mcc_threshold", "bootstrap", "brier", "brier_decomposition",
    "brier_skill", "clopper_pearson", "clopper_pearson_upper", "confusion", "coverage_at_risk", "e_augrc", "e_aurc",
    "ece", "ece_classwise", "ece_debiased", "ece_null_band", "ece_verdict", "evaluate", "evaluate_rows", "f05", "f1",
    "f_beta", "fnr", "fpr", "mcc", "mce", "n_needed_for", "nll", "precision", "recall", "reliability_curve",
    "replicates", "risk_at_coverage", "risk_coverage_curve", "smooth_ece", "specificity", "spiegelhalter_z", "wilson",
]  # fmt: skip
