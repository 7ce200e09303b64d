"""``workzone registry``: versions of bundles, who serves, and the evidence that decides it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from workzone.errors import ConfigError

if TYPE_CHECKING:
    from workzone.registry.gates import Gate

app = typer.Typer(
    no_args_is_help=True, help="Versions of bundles: gates, promotion, rollback, shadow and A/B, roll-out."
)
_ROOT = typer.Option(Path("registry"), "--root", "-r", help="Folder of the registry.", envvar="WORKZONE_REGISTRY")
_JSON = typer.Option(False, "--json", help="Print JSON.")
_LIMIT = typer.Option(None, "--limit", help="Largest promised limit, as RISK=VALUE; may be repeated.")


class Target(StrEnum):
    """Whom a version may become."""

    champion = "champion"
    challenger = "challenger"


class Counted(StrEnum):
    """What an A/B test counts."""

    wrong = "wrong"
    not_right = "not_right"
    missed = "missed"
    false_alarm = "false_alarm"


class Against(StrEnum):
    """Whom the champion is compared with in the log of a server."""

    challenger = "challenger"
    shadow = "shadow"


def _limits(words: Sequence[str] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for word in words or ():
        risk, _, value = word.partition("=")
        try:
            found[risk] = float(value)
        except ValueError as error:
            raise ConfigError(f"{word[:80]!r} is no limit", where="--limit", fix="write RISK=VALUE") from error
        if not risk or not 0 < found[risk] < 1:
            raise ConfigError(f"{word[:80]!r} is no limit", where="--limit", fix="give a value between 0 and 1")
    return found


def _print(gates: Sequence[Gate], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([g.to_dict() for g in gates], indent=2))
        return
    for g in gates:
        word = {True: "ok    ", False: "FAILED", None: "-     "}[g.passed]
        typer.echo(f"{word} {g.name}: {g.detail}")


def _dump(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, sort_keys=True))


@app.command("add")
def add(
    bundle: Path = typer.Argument(..., help="Folder of the bundle; a copy is kept."),
    version: str | None = typer.Option(None, "--version", help="MAJOR.MINOR.PATCH; else the next minor version."),
    note: str = typer.Option("", "--note", help="For people."),
    root: Path = _ROOT,
) -> None:
    """Check a bundle, keep a copy and give it a version."""
    from workzone.registry.store import Registry

    typer.echo(f"Version {Registry(root).add(bundle, version, note=note)}: {root}")


@app.command("list")
def list_versions(root: Path = _ROOT, as_json: bool = _JSON) -> None:
    """Versions and aliases."""
    from rich.console import Console
    from rich.table import Table

    from workzone.cli.tables import print_table
    from workzone.registry.store import Registry

    state = Registry(root).state()
    rows = []
    for version, sha in state.versions.items():
        about = state.added[version]
        held = [alias for alias, owner in state.aliases.items() if owner == version]
        rows.append({**about.values, "version": version, "bundle_sha256": sha, "time": about.time, "aliases": held})
    if as_json:
        _dump(rows)
        return
    table = Table("version", "aliases", "bundle", "engine", "certified", "sha256", "added", box=None)
    for r in rows:
        certified = "yes" if r["certified"] else "no"
        alias = ", ".join(r["aliases"])
        table.add_row(r["version"], alias, r["name"], r["engine"], certified, r["bundle_sha256"][:12], r["time"])
    print_table(Console(highlight=False), table)


@app.command("promote")
def promote(
    version: str = typer.Argument(..., help="A version, or 'challenger'."),
    to: Target = typer.Option(Target.champion, "--to", help="Whom it becomes."),
    limit: list[str] | None = _LIMIT,
    expect: str | None = typer.Option(None, "--expect", help="Only while this version is the champion."),
    force: str = typer.Option("", "--force", help="Why a failed gate is overruled; kept in the log.", metavar="REASON"),
    root: Path = _ROOT,
    as_json: bool = _JSON,
) -> None:
    """Let a version serve when every gate lets it pass; the champion becomes 'previous'. Exit 3 where a gate failed."""
    from workzone.registry.store import Registry

    gates = Registry(root).promote(version, to.value, limits=_limits(limit), force=force, expect=expect)
    _print(gates, as_json)
    if not as_json:
        typer.echo(f"{version} is {to.value}: {root / 'aliases' / to.value}")


@app.command("rollback")
def rollback(
    reason: str = typer.Option(..., "--reason", help="Kept in the log."),
    if_void: bool = typer.Option(
        False, "--if-void", help="Only where the champion is damaged or its certificate void."
    ),
    root: Path = _ROOT,
) -> None:
    """Let the previous champion serve again."""
    from workzone.registry.store import Registry

    version = Registry(root).rollback(reason, only_if_void=if_void)
    typer.echo("The champion is good; nothing was done." if version is None else f"{version} is champion again: {root}")


@app.command("withdraw")
def withdraw(reason: str = typer.Option(..., "--reason", help="Kept in the log."), root: Path = _ROOT) -> None:
    """Take the challenger out of the race."""
    from workzone.registry.store import Registry

    version = Registry(root).withdraw(reason)
    typer.echo("There is no challenger." if version is None else f"{version} is no challenger any more.")


@app.command("show")
def show(
    name: str | None = typer.Argument(None, help="A version or an alias; else the whole log."), root: Path = _ROOT
) -> None:
    """The folder and the history of a version, or the whole log, as JSON."""
    from workzone.registry.store import Registry

    registry = Registry(root)
    entries = [
        {**e.values, "seq": e.seq, "time": e.time, "event": e.event, "sha256": e.sha256} for e in registry.entries()
    ]
    if name is None:
        _dump({"head": registry.head(), "aliases": registry.state().aliases, "log": entries})
        return
    folder = registry.folder(name)
    version = registry.state().aliases.get(name, name)
    history = [e for e in entries if version in (e["version"], e.get("from"))]
    _dump({"version": version, "folder": str(folder), "history": history})


@app.command("verify")
def verify(
    head: str | None = typer.Option(None, "--head", help="Hash of the log that was noted elsewhere; it must be in it."),
    root: Path = _ROOT,
    as_json: bool = _JSON,
) -> None:
    """Check the chain of the log, the links and every bundle; exit 3 where something was changed."""
    from workzone.registry.store import Registry

    gates = Registry(root).verify(head=head)
    _print(gates, as_json)
    if any(g.passed is False for g in gates):
        raise typer.Exit(3)


@app.command("mlflow")
def mlflow(
    uri: str = typer.Option(..., "--uri", help="Tracking store, for example sqlite:///mlflow.db."),
    name: str = typer.Option("workzone", "--name", help="Registered model."),
    root: Path = _ROOT,
) -> None:
    """Mirror versions and aliases to MLflow; may be repeated."""
    from workzone.registry.mlflow_mirror import mirror
    from workzone.registry.store import Registry

    for version, theirs in mirror(Registry(root), uri, name).items():
        typer.echo(f"{version}: {name} version {theirs}")


@app.command("shadow")
def shadow(
    a: Path = typer.Argument(
        ..., help="Predictions of the champion: CSV, Parquet, JSON lines, SQLite; or the log of a server with a shadow."
    ),
    b: Path | None = typer.Argument(None, help="Predictions of the challenger on the same images; not for a server."),
    by: list[str] | None = typer.Option(None, "--by", help="Column of the first table to slice by; may be repeated."),
    limit: float | None = typer.Option(
        None, "--limit", min=0.0, max=1.0, help="Exit 3 where decisions differ more often for certain."
    ),
    as_json: bool = _JSON,
) -> None:
    """Where two bundles decide differently on the same images; no labels are needed."""
    from workzone.cli.bundle import need_eval

    need_eval("the shadow comparison")
    from workzone.registry.shadow import compare

    found = compare(a, b or a, by or (), roles=("", "") if b is not None else ("", "shadow"))
    if as_json:
        _dump(found.to_dict())
    else:
        typer.echo(f"{found.n} images of both; {found.only_a} only in the first, {found.only_b} only in the second")
        typer.echo(f"decisions differ       {found.decisions.text()}")
        typer.echo(f"opposite answers       {found.opposite.text()}")
        typer.echo(f"probability            mean {found.mean_difference:+.4f}, mean size {found.mean_absolute:.4f}")
        for pair, count in found.table.items():
            typer.echo(f"  {pair:<27} {count}")
        typer.echo("by slice, intervals corrected for their number:")
        for s in found.slices:
            typer.echo(f"  {s.column}={s.value:<24} {s.rate.text()}")
        for row in found.largest:
            p = f"{row['probability_a']:.3f} -> {row['probability_b']:.3f}"
            typer.echo(f"  {row['id']}: {row['a']} -> {row['b']} ({p})")
    if limit is not None and found.stop(limit):
        raise typer.Exit(3)


@app.command("ab")
def ab(
    champion: Path | None = typer.Option(None, "--champion", help="Its predictions."),
    challenger: Path | None = typer.Option(
        None, "--challenger", help="Its predictions, of the same images or of others."
    ),
    log: Path | None = typer.Option(None, "--log", help="Log of a server with both bundles, in place of these two."),
    against: Against = typer.Option(Against.challenger, "--against", help="With --log: who is compared."),
    labels: Path = typer.Option(..., "--labels", help="Reviewed labels (id or path, label), in order of review."),
    event: Counted = typer.Option(Counted.wrong, "--event", help="What is counted."),
    delta: float = typer.Option(0.05, "--delta", min=1e-6, max=0.5, help="Chance of stopping falsely, each direction."),
    withdraw_from: Path | None = typer.Option(
        None, "--withdraw-from", help="Registry whose challenger is withdrawn where it is worse."
    ),
    as_json: bool = _JSON,
) -> None:
    """Compare error rates on reviewed labels; look as often as you like. Exit 3 where the challenger is worse."""
    from workzone.cli.bundle import need_eval

    need_eval("the A/B test")
    from workzone.registry.ab import judge
    from workzone.registry.store import Registry

    if log is not None and champion is None and challenger is None:
        one, two, roles = log, log, ("champion", against.value)
    elif log is None and champion is not None and challenger is not None:
        one, two, roles = champion, challenger, ("", "")
    else:
        raise ConfigError("it is not said who is compared with whom", fix="give --log, or --champion and --challenger")
    found = judge(one, two, labels, event=event.value, delta=delta, roles=roles)
    if as_json:
        _dump(found.to_dict())
    else:
        typer.echo(f"{found.mode}, counted: {found.event}; {found.unused} labels do not count")
        typer.echo(f"champion    {found.champion.text()}")
        typer.echo(f"challenger  {found.challenger.text()}")
        typer.echo(f"{found.test}: p = {found.p:.4g}, for one look at a number of labels fixed before")
        evidence = f"e-values {found.e_worse:.3g} (worse), {found.e_better:.3g} (better), stop at {found.limit:g}"
        typer.echo(f"at any time: {found.verdict}; {evidence}; {found.discordant} discordant pairs")
    if found.verdict == "challenger worse":
        if withdraw_from is not None:
            Registry(withdraw_from).withdraw(
                f"A/B on {found.event}: e-value {found.e_worse:.3g} after {found.discordant}"
            )
        raise typer.Exit(3)


@app.command("power")
def power(
    champion: float = typer.Argument(..., min=1e-6, max=0.999999, help="Share of events of the champion."),
    challenger: float = typer.Argument(..., min=1e-6, max=0.999999, help="Share that should be seen."),
    delta: float = typer.Option(0.05, "--delta", min=1e-6, max=0.5),
    chance: float = typer.Option(0.8, "--power", min=0.01, max=0.999, help="Chance of seeing it."),
    as_json: bool = _JSON,
) -> None:
    """How many reviewed labels tell two shares apart."""
    from workzone.cli.bundle import need_eval

    need_eval("power")
    from workzone.registry.ab import labels_needed

    if champion == challenger:
        raise ConfigError("equal shares cannot be told apart", fix="give the difference that matters")
    found = labels_needed(champion, challenger, delta=delta, power=chance)
    if as_json:
        _dump(found.to_dict())
        return
    typer.echo(f"split, fixed size:     {found.split} labels for each bundle (Fisher)")
    typer.echo(f"paired, fixed size:    {found.paired} labels (McNemar, errors independent)")
    shown = (
        "more than the simulation shows" if found.sequential is None else f"{found.sequential} labels for each bundle"
    )
    typer.echo(f"looked at at any time: {shown}")


@app.command("assign")
def assign(
    request_id: str = typer.Argument(..., help="Request, drive or client."),
    share: float = typer.Option(..., "--share", min=0.0, max=1.0, help="Of the challenger."),
    salt: str = typer.Option("", "--salt", help="Of the experiment."),
) -> None:
    """Who answers a request; the same one always the same."""
    from workzone.registry.split import assign as arm

    typer.echo(arm(request_id, share, salt))


@app.command("triton")
def triton(
    bundle: Path = typer.Argument(..., help="Folder of a bundle with engine onnxruntime."),
    out: Path = typer.Option(Path("models"), "--out", "-o", help="Model repository."),
    instances: int = typer.Option(1, "--instances", min=1, max=64),
) -> None:
    """Write the network as a model repository of Triton; calibration and policy are not in it."""
    from workzone.registry.triton import write_triton

    for path in write_triton(bundle, out, instances=instances):
        typer.echo(str(path))


@app.command("kserve")
def kserve(
    name: str = typer.Argument("workzone", help="Of the service."),
    image: str = typer.Option("workzone:cpu", "--image", help="Made of deploy/docker/Dockerfile.cpu."),
    storage: str = typer.Option(..., "--storage", help="URI of the bundle, for example pvc://bundles/1.4.0."),
) -> None:
    """Print an InferenceService of KServe that runs the server."""
    from workzone.registry.triton import kserve_yaml

    typer.echo(kserve_yaml(name, image, storage), nl=False)


def checklist(
    bundle: Path = typer.Argument(..., help="Folder of the bundle."),
    limit: list[str] | None = _LIMIT,
    api_key_file: Path | None = typer.Option(None, "--api-key-file", help="That of the server."),
    reference: Path | None = typer.Option(None, "--reference", help="What 'workzone monitor freeze' made."),
    registry: Path | None = typer.Option(None, "--registry", help="Its champion should be this bundle."),
    url: str | None = typer.Option(None, "--url", help="Of the running server."),
    api_key: str | None = typer.Option(None, "--api-key", help="To ask the server.", envvar="WORKZONE_API_KEY"),
    load_test: Path | None = typer.Option(None, "--load-test", help="Report of 'workzone load'."),
    as_json: bool = _JSON,
) -> None:
    """What must hold before production, computed; what cannot be proved has failed. Exit 3 where anything failed."""
    from workzone.serving.checklist import Given
    from workzone.serving.checklist import checklist as rows

    given = Given(bundle, _limits(limit), api_key_file, api_key, reference, registry, url, load=load_test)
    gates = rows(given)
    _print(gates, as_json)
    if any(g.passed is not True for g in gates):
        raise typer.Exit(3)
