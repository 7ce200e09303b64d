"""Every path of a run; nothing else in the project spells one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Paths below the folder of a run."""

    root: Path

    @property
    def config(self) -> Path:
        """Resolved configuration."""
        return self.root / "config.yaml"

    @property
    def record(self) -> Path:
        """Run manifest: what each phase read, wrote, and opened."""
        return self.root / "run.json"

    @property
    def lock(self) -> Path:
        """Held by the process that works in this folder."""
        return self.root / ".lock"

    @property
    def folders(self) -> list[Path]:
        """Everything that phases write lies in one of these."""
        early = ("prepare", "pretrain", "augment", "train", "fuse", "export")
        late = ("calibrate", "decide", "evaluate", "bundle", "variants", "score")
        return [self.root / name for name in (*early, *late)]

    @property
    def tracking(self) -> Path:
        """Curves and figures for people; no phase reads it."""
        return self.root / "tracking"

    @property
    def synthetic(self) -> Path:
        """Drawn scenes of data=synthetic."""
        return self.root / "prepare" / "synthetic"

    @property
    def imported(self) -> Path:
        """Images that lie inside other files, such as Parquet shards, taken out."""
        return self.root / "prepare" / "imported"

    @property
    def manifest(self) -> Path:
        """The table of images."""
        return self.root / "prepare" / "manifest.parquet"

    @property
    def rejected(self) -> Path:
        """Images left out, with the reason."""
        return self.root / "prepare" / "rejected.csv"

    @property
    def splits(self) -> Path:
        """Split roles."""
        return self.root / "prepare" / "splits.json"

    @property
    def pretrain(self) -> Path:
        """Folder of phase pretrain; checkpoints are kept here."""
        return self.root / "pretrain"

    @property
    def pretrained(self) -> list[Path]:
        """Weights of the pretrained backbone, and what they belong to."""
        return [self.pretrain / "backbone.safetensors", self.pretrain / "backbone.json"]

    @property
    def pretrain_metrics(self) -> Path:
        """Curve of phase pretrain."""
        return self.pretrain / "pretrain.json"

    @property
    def pool(self) -> Path:
        """Images that phase pretrain learns from."""
        return self.pretrain / "images.parquet"

    @property
    def augment(self) -> Path:
        """Folder of phase augment; its trials are kept here."""
        return self.root / "augment"

    @property
    def augmentation(self) -> Path:
        """Which augmentation phase train takes, and why."""
        return self.augment / "policy.json"

    @property
    def trials(self) -> Path:
        """Every trial of phase augment."""
        return self.augment / "trials.csv"

    @property
    def train(self) -> Path:
        """Folder of phase train; checkpoints are kept here."""
        return self.root / "train"

    @property
    def adapted(self) -> Path:
        """Folder of the adapted backbone, merged; absent when frozen."""
        return self.train / "backbone"

    @property
    def backbone_onnx(self) -> Path:
        """Folder with the backbone as ONNX: what embeds, from training to production."""
        return self.train / "onnx"

    @staticmethod
    def head_files(folder: Path, name: str) -> list[Path]:
        """Weights and settings of a stored head."""
        return [folder / f"{name}.safetensors", folder / f"{name}.json"]

    @property
    def train_metrics(self) -> Path:
        """Curve and validation figures of phase train."""
        return self.train / "metrics.json"

    @property
    def fuse(self) -> Path:
        """Folder of phase fuse; checkpoints are kept here."""
        return self.root / "fuse"

    @property
    def fuse_metrics(self) -> Path:
        """Curve and validation figures of phase fuse."""
        return self.fuse / "metrics.json"

    @property
    def preprocessing(self) -> Path:
        """From image file to views."""
        return self.train / "preprocessing.json"

    def engine(self, variant: str) -> Path:
        """Folder of one exported network."""
        return self.root / "export" / variant

    @property
    def one_view_head(self) -> Path:
        """The head that looks once, as ONNX."""
        return self.root / "export" / "one_view" / "head.onnx"

    @property
    def golden(self) -> Path:
        """Images of the golden cases."""
        return self.root / "export" / "golden"

    @property
    def parity(self) -> Path:
        """How close each engine is to the trained network."""
        return self.root / "export" / "parity.json"

    def calibration_scores(self, variant: str) -> Path:
        """Scores of one engine on val_calib."""
        return self.root / "calibrate" / variant / "val_calib.parquet"

    def calibrator(self, variant: str) -> Path:
        """Fitted calibrator."""
        return self.root / "calibrate" / variant / "calibrator.json"

    def calibration(self, variant: str) -> Path:
        """Which images fitted the calibrator, and the comparison of methods."""
        return self.root / "calibrate" / variant / "calibration.json"

    def one_view_calibrator(self, variant: str) -> Path:
        """Calibrator of the head that looks once."""
        return self.root / "calibrate" / variant / "one_view_calibrator.json"

    def policy(self, variant: str) -> Path:
        """The one policy."""
        return self.root / "decide" / variant / "policy.json"

    def certificate(self, variant: str) -> Path:
        """What is promised."""
        return self.root / "decide" / variant / "certificate.json"

    def uncertainty(self, variant: str) -> Path:
        """How well measures of uncertainty and failure gates find mistakes."""
        return self.root / "decide" / variant / "uncertainty.json"

    @property
    def evaluate(self) -> Path:
        """Figures, plots and the report of the main variant."""
        return self.root / "evaluate"

    def evaluate_variant(self, variant: str) -> Path:
        """Figures of another variant."""
        return self.evaluate / "variants" / f"{variant}.json"

    @property
    def metrics(self) -> Path:
        """Figures with intervals."""
        return self.evaluate / "metrics_summary.json"

    @property
    def report(self) -> Path:
        """The report as one page."""
        return self.evaluate / "report.html"

    @property
    def test_scores(self) -> Path:
        """Scores and decisions on val_test."""
        return self.evaluate / "predictions.parquet"

    @property
    def held_out(self) -> Path:
        """Scores of the fold that a cell of an ablation holds out."""
        return self.root / "score" / "held_out.parquet"

    @property
    def bundle(self) -> Path:
        """The deliverable."""
        return self.root / "bundle"

    def variant_bundle(self, variant: str) -> Path:
        """Bundle of another engine or precision."""
        return self.root / "variants" / variant
