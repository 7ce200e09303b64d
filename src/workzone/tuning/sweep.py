"""Search over keys of the configuration, judged on ``val_select`` alone; every trial is kept in one SQLite file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workzone.cluster import Launcher
from workzone.config import RunConfig
from workzone.config.load import dump_yaml, load_config
from workzone.errors import ConfigError, MissingExtraError, WorkzoneError
from workzone.files import read_json, write_atomic, write_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Progress
from workzone.pipeline.phases import prepare
from workzone.tuning.cell import Cell, cell_config, train_cell
from workzone.tuning.grid import over
from workzone.tuning.pool import Pool, neighbours, open_pool
from workzone.tuning.space import Axis

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "random", "grid"]
HIGHER = {"nll": False, "auroc": True, "mcc": True, "accuracy": True}
_STUDY = "workzone"


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """How a sweep searches.

    Attributes:
        trials: trials in all, finished ones of an earlier call included; a grid ends by itself.
        sampler: tpe, random or grid.
        steps: values of a range in a grid.
        seeds: trainings of one trial; after each, a trial below the median of the others at that point is pruned.
        metric: figure of the fused head on val_select: nll, auroc, mcc or accuracy.
        workers: trials at the same time, each in a process.
        launcher: processes of this machine, or tasks of a Ray cluster that sees the same folders.
        address: of the cluster; None for ``RAY_ADDRESS`` or one of this machine.
    """

    trials: int = 20
    sampler: Sampler = "tpe"
    steps: int = 4
    seeds: int = 1
    metric: str = "nll"
    workers: int = 1
    launcher: Launcher = "local"
    address: str | None = None


def run_sweep(
    words: Sequence[str], space: Sequence[Axis], out: Path, plan: SweepPlan, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Search and write ``sweep.db``, ``trials.csv``, ``best.yaml``, ``history.png`` and ``parameters.png`` to ``out``.

    A second call goes on with the trials that are missing; a trial that was killed is run again from what it finished.

    Returns:
        ``best`` (value, params, words), ``trials``, ``pruned``, ``failed``.

    Raises:
        ConfigError: a wrong key, or no trial that could be finished.
        MissingExtraError: optuna is not installed.
    """
    _need_optuna()
    import optuna

    if plan.metric not in HIGHER:
        raise ConfigError(f"a sweep cannot go by {plan.metric!r}", fix=f"take one of {', '.join(HIGHER)}")
    if min(plan.trials, plan.steps, plan.seeds, plan.workers) < 1:
        raise ConfigError("trials, steps, seeds and workers must be at least 1")
    show = progress or Progress()
    base = load_config(words)
    for axis in space:
        load_config(over(words, [f"{axis.key}={_text(axis.values(2)[0])}"]))
    out.mkdir(parents=True, exist_ok=True)
    home = Artifacts(out / "base")
    run_pipeline(base.model_copy(update={"out": home.root}), (prepare.SPEC,), progress=show)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(out, space, plan, base.seed)
    _enqueue_interrupted(study)
    if plan.sampler == "grid":
        total = int(np.prod([len(a.values(plan.steps)) for a in space]))
        todo = min(plan.trials, total) - _finished(study)
    else:
        total = plan.trials
        todo = plan.trials - _finished(study)
    with show.bar(f"{plan.sampler} search over {', '.join(a.key for a in space)}") as advance:
        advance(_finished(study), total)
        objective = Objective(tuple(words), tuple(space), out, plan, base.seed)
        if plan.workers == 1 and plan.launcher == "local":
            for _ in range(max(0, todo)):
                study.optimize(objective, n_trials=1, catch=(WorkzoneError,))
                advance(_finished(study), total)
        elif todo > 0:
            with open_pool(plan.launcher, plan.workers, address=plan.address) as pool:
                for _ in _ask_and_tell(study, objective, pool, todo):
                    advance(_finished(study), total)
    return _write(study, words, out, plan)


def _need_optuna() -> None:
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise MissingExtraError("optuna", "ops", feature="a sweep")


def _study(out: Path, space: Sequence[Axis], plan: SweepPlan, seed: int) -> optuna.Study:
    import optuna

    storage = f"sqlite:///{(out / 'sweep.db').resolve()}"
    sampler, pruner = _sampler(space, plan, seed), optuna.pruners.MedianPruner(n_startup_trials=4)
    study = optuna.create_study(
        study_name=_STUDY,
        storage=storage,
        sampler=sampler,
        pruner=pruner,
        direction="maximize" if HIGHER[plan.metric] else "minimize",
        load_if_exists=True,
    )
    asked = {"metric": plan.metric, "seeds": plan.seeds, "space": [repr(a) for a in space]}
    known = study.user_attrs.get("asked")
    if known is not None and known != asked:
        raise ConfigError(
            "the folder holds a sweep of another space, metric or number of seeds", where=str(out), fix="name a new out"
        )
    study.set_user_attr("asked", asked)
    return study


def _sampler(space: Sequence[Axis], plan: SweepPlan, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    if plan.sampler == "grid":
        return _grid({a.key: a.values(plan.steps) for a in space}, seed)
    if plan.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)


def _grid(values: dict[str, list[Any]], seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    class Grid(optuna.samplers.GridSampler):
        """Leaves the end to the caller, who counts: the original stops the study, which only its own loop may."""

        def after_trial(self, *arguments: object) -> None:
            """Do nothing."""

    return Grid(values, seed=seed)


def _finished(study: optuna.Study) -> int:
    return sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))


def _enqueue_interrupted(study: optuna.Study) -> None:
    """Trials whose process was killed are marked as failed and asked for again."""
    import optuna

    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _ask_and_tell(study: optuna.Study, objective: Objective, pool: Pool, todo: int) -> Iterator[None]:
    """Run ``todo`` trials with ``plan.workers`` of them in the pool at a time; yields as each ends.

    The study stays with this process, since a file of SQLite is no place for several machines to meet.
    """
    import optuna

    running: dict[Future[float], tuple[optuna.Trial, list[float]]] = {}

    def begin(trial: optuna.Trial, values: list[float]) -> None:
        running[pool.submit(objective.train, objective.config(trial), len(values))] = trial, values

    while todo or running:
        while todo and len(running) < objective.plan.workers:
            begin(study.ask(), [])
            todo -= 1
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            trial, values = running.pop(future)
            try:
                values.append(future.result())
            except WorkzoneError:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                yield
                continue
            mean = float(np.mean(values))
            trial.report(mean, len(values) - 1)
            if len(values) == objective.plan.seeds:
                study.tell(trial, mean)
                yield
            elif trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                yield
            else:
                begin(trial, values)


@dataclass(frozen=True, slots=True)
class Objective:
    """Value of one trial: the mean figure over its seeds."""

    words: tuple[str, ...]
    space: tuple[Axis, ...]
    out: Path
    plan: SweepPlan
    seed: int

    def __call__(self, trial: optuna.Trial) -> float:
        """Train with every seed; raises ``TrialPruned`` where the mean so far lies on the worse side of the median."""
        import optuna

        config = self.config(trial)
        values = []
        for step in range(self.plan.seeds):
            values.append(self.train(config, step))
            mean = float(np.mean(values))
            trial.report(mean, step)
            if step + 1 < self.plan.seeds and trial.should_prune():
                raise optuna.TrialPruned
        return mean

    def config(self, trial: optuna.Trial) -> RunConfig:
        """Configuration that ``trial`` asks for."""
        chosen = {axis.key: axis.suggest(trial) for axis in self.space}
        return load_config(over(self.words, [f"{k}={_text(v)}" for k, v in chosen.items()]))

    def train(self, config: RunConfig, step: int) -> float:
        """Train with seed ``step`` of the trial (or find it trained); returns its figure."""
        home = Artifacts(self.out / "base")
        at_once = neighbours(self.plan.launcher, self.plan.workers)
        own = cell_config(config, self.out, step, seed=self.seed + step, workers=at_once)
        cell = Cell("trial", own, home.manifest, home.splits, step, 0)
        train_cell(cell)
        return float(read_json(Artifacts(cell.config.out).fuse_metrics)["val_select"][self.plan.metric])


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _write(study: optuna.Study, words: Sequence[str], out: Path, plan: SweepPlan) -> dict[str, Any]:
    import optuna

    from workzone.tuning.draw import history, slices

    trials = study.get_trials(deepcopy=False)
    complete = [t for t in trials if t.state == optuna.trial.TrialState.COMPLETE and t.value is not None]
    if not complete:
        raise ConfigError("no trial of the sweep could be finished", where=str(out), fix="run one trial with 'run'")
    best = (max if HIGHER[plan.metric] else min)(complete, key=lambda t: float(t.value or 0.0))
    chosen = [f"{k}={_text(v)}" for k, v in best.params.items()]
    write_atomic(out / "best.yaml", dump_yaml(load_config(over(words, chosen))))
    names = sorted({n for t in trials for n in t.params})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", plan.metric, "seconds", *names])
    for t in trials:
        seconds = "" if t.duration is None else round(t.duration.total_seconds(), 2)
        writer.writerow([t.number, t.state.name.lower(), t.value, seconds, *(t.params.get(n) for n in names)])
    write_atomic(out / "trials.csv", text.getvalue())
    values = [t.value if t in complete else None for t in trials]
    write_atomic(out / "history.png", history(values, plan.metric, maximise=HIGHER[plan.metric]))
    write_atomic(out / "parameters.png", slices([(t.params, float(t.value or 0.0)) for t in complete], plan.metric))
    states = [t.state for t in trials]
    result = {
        "metric": plan.metric,
        "best": {"trial": best.number, "value": best.value, "params": best.params, "words": chosen},
        "trials": len(trials),
        "pruned": states.count(optuna.trial.TrialState.PRUNED),
        "failed": states.count(optuna.trial.TrialState.FAIL),
    }
    write_json(out / "sweep.json", result)
    return result
