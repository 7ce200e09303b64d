"""Phase augment: choose the augmentation of phase train by short trainings on role train alone."""

from __future__ import annotations

import csv
import io

from workzone.data.roles import TrainData
from workzone.files import write_atomic, write_json
from workzone.pipeline.phase import Context, PhaseSpec


def _run(context: Context) -> None:
    from workzone.models.backbones import create_backbone, load_backbone
    from workzone.training.check import check_settings
    from workzone.training.search import search_policy

    config, artifacts, settings = context.config, context.artifacts, context.config.train
    check_settings(config)
    train = context.open(TrainData)
    extra = {"drop_path": settings.drop_path, "checkpointing": settings.checkpointing}
    if config.pretrain.method == "none":
        backbone = create_backbone(config.model, **extra)  # type: ignore[arg-type]
    else:
        backbone = load_backbone(artifacts.pretrain, **extra)  # type: ignore[arg-type]
    with context.progress.bar("trials of augmentation") as advance:
        choice = search_policy(
            backbone,
            train,
            settings,
            config.augment,
            seed=config.seed,
            folder=artifacts.augment / "trials",
            device=config.compute.device,
            workers=config.compute.workers,
            layout=config.views,
            report=advance,
        )
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["policy", "seed", "mcc", "held", "groups", "seconds"])
    for t in choice.trials:
        rows.writerow([t.policy, t.seed, f"{t.mcc:.6f}", choice.held, choice.groups, f"{t.seconds:.3f}"])
    rows.writerows([policy, seed, "not run: time", choice.held, choice.groups, ""] for policy, seed in choice.left)
    write_atomic(artifacts.trials, table.getvalue())
    write_json(
        artifacts.augmentation,
        {
            "augment": choice.augment,
            "preset": settings.augment,
            "why": choice.why,
            "gains": {p: dict(zip(("mcc", "low", "high"), g, strict=True)) for p, g in choice.gains.items()},
            "not_run": len(choice.left),
        },
    )
    context.progress.message(f"  augmentation {choice.augment}: {choice.why}")


SPEC = PhaseSpec(
    name="augment",
    version=1,
    config=("seed", "views", "model", "train", "augment"),
    inputs=lambda a, c: [a.manifest, a.splits, *(a.pretrained if c.pretrain.method != "none" else [])],
    outputs=lambda a, c: [a.augmentation, a.trials],
    roles=(TrainData.role,),
    run=_run,
    wanted=lambda c: c.augment.search,
)
