"""``workzone registry``: versions of bundles, who serves, and the evidence that decides it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from workzone.cli.gates import JSON, LIMIT, limits_of, print_gates
from workzone.errors import ConfigError

if TYPE_CHECKING:
    from workzone.registry.store import Registry

app = typer.Typer(
    no_args_is_help=True, help="Versions of bundles: gates, promotion, rollback, shadow and A/B, roll-out."
)
_ROOT = typer.Option(
    "registry",
    "--root",
    "-r",
    help="Folder of the registry, or where MLflow holds it: sqlite:///FILE, postgresql://HOST/DB, http://HOST.",
    envvar="WORKZONE_REGISTRY",
)


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


def _open(root: str) -> Registry:
    from workzone.registry.address import registry_of

    return registry_of(root, apart=True)


def _tell(registry: Registry) -> None:
    """MLflow holds the same versions and aliases, unless it is off or not installed."""
    from workzone.registry.address import tell_mlflow

    tell_mlflow(registry, lambda text: typer.echo(text, err=True), apart=True)


def _dump(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, sort_keys=True))


@app.command("add")
def add(
    bundle: Path = typer.Argument(..., help="Folder of the bundle; a copy is kept."),
    version: str | None = typer.Option(None, "--version", help="MAJOR.MINOR.PATCH; else the next minor version."),
    note: str = typer.Option("", "--note", help="For people."),
    mlflow: str | None = typer.Option(
        None,
        "--mlflow",
        help="Where MLflow holds versions and aliases too, or 'off'; kept. Else mlflow.db in the folder.",
        envvar="WORKZONE_MLFLOW",
        metavar="URI[#NAME]",
    ),
    root: str = _ROOT,
) -> None:
    """Check a bundle, keep a copy and give it a version."""
    from workzone.registry.address import Link

    link = None if mlflow is None else Link.parse(mlflow)
    registry = _open(root)
    made = registry.add(bundle, version, note=note)
    if link is not None:
        link.keep(registry)
    typer.echo(f"Version {made}: {root}")
    _tell(registry)


@app.command("list")
def list_versions(root: str = _ROOT, as_json: bool = JSON) -> None:
    """Versions and aliases."""
    from rich.console import Console
    from rich.table import Table

    from workzone.cli.tables import print_table

    state = _open(root).state()
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
    limit: list[str] | None = LIMIT,
    expect: str | None = typer.Option(None, "--expect", help="Only while this version is the champion."),
    load_test: Path | None = typer.Option(None, "--load-test", help="Report of 'workzone load' on this very bundle."),
    force: str = typer.Option("", "--force", help="Why a failed gate is overruled; kept in the log.", metavar="REASON"),
    root: str = _ROOT,
    as_json: bool = JSON,
) -> None:
    """Let a version serve when every gate lets it pass; the champion becomes 'previous'. Exit 3 where a gate failed."""
    from workzone.serving.load import load_gate

    registry = _open(root)
    wanted = to.value
    gates = registry.promote(
        version,
        wanted,
        limits=limits_of(limit),
        force=force,
        expect=expect,
        more=[lambda bundle: load_gate(load_test, bundle)],
    )
    print_gates(gates, as_json)
    if not as_json:
        typer.echo(f"{version} is {wanted}: {registry.root / 'aliases' / wanted}")
    _tell(registry)


@app.command("rollback")
def rollback(
    reason: str = typer.Option(..., "--reason", help="Kept in the log."),
    if_void: bool = typer.Option(
        False, "--if-void", help="Only where the champion is damaged or its certificate void."
    ),
    root: str = _ROOT,
) -> None:
    """Let the previous champion serve again."""
    registry = _open(root)
    version = registry.rollback(reason, only_if_void=if_void)
    typer.echo("The champion is good; nothing was done." if version is None else f"{version} is champion again: {root}")
    if version is not None:
        _tell(registry)


@app.command("withdraw")
def withdraw(reason: str = typer.Option(..., "--reason", help="Kept in the log."), root: str = _ROOT) -> None:
    """Take the challenger out of the race."""
    registry = _open(root)
    version = registry.withdraw(reason)
    typer.echo("There is no challenger." if version is None else f"{version} is no challenger any more.")
    if version is not None:
        _tell(registry)


@app.command("show")
def show(
    name: str | None = typer.Argument(None, help="A version or an alias; else the whole log."), root: str = _ROOT
) -> None:
    """The folder and the history of a version, or the whole log, as JSON."""
    registry = _open(root)
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
    root: str = _ROOT,
    as_json: bool = JSON,
) -> None:
    """Check the chain of the log, the links and every bundle; exit 3 where something was changed."""
    from workzone.registry.address import mlflow_gate

    registry = _open(root)
    gates = [*registry.verify(head=head), mlflow_gate(registry)]
    print_gates(gates, as_json)
    if any(g.passed is False for g in gates):
        raise typer.Exit(3)


@app.command("mlflow")
def mlflow(
    uri: str | None = typer.Option(
        None,
        "--uri",
        help="sqlite:///FILE, postgresql://HOST/DB, http://HOST or off; kept. Else what was said before.",
    ),
    name: str = typer.Option("workzone", "--name", help="Registered model."),
    root: str = _ROOT,
) -> None:
    """Bring MLflow up to the log of the registry, or to another store of MLflow; may be repeated."""
    from workzone.registry.address import OFF, Link
    from workzone.registry.mlflow_mirror import mirror

    registry = _open(root)
    if uri == OFF:
        Link.parse(OFF).keep(registry)
        typer.echo("MLflow is told nothing any more.")
        return
    link = Link.of(registry) if uri is None else Link.parse(f"{uri}#{name}")
    if link is None:
        raise ConfigError("MLflow is off or not installed", fix="give --uri, or: pip install 'workzone[ops]'")
    told = mirror(registry, link.uri, link.name, note=lambda text: typer.echo(text, err=True))
    if uri is not None:
        link.keep(registry)
    for version, theirs in told.items():
        typer.echo(f"{version}: {link.name} version {theirs}")


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
    as_json: bool = JSON,
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
        typer.echo("first / second, images:")
        for pair, count in found.table.items():
            typer.echo(f"  {pair:<27} {count}")
        typer.echo("share of different decisions by slice, intervals corrected for their number:")
        for s in found.slices:
            typer.echo(f"  {s.column}={s.value:<24} {s.rate.text()}")
        if found.largest:
            typer.echo("differ most, with P(roadwork) of the first and the second:")
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
    withdraw_from: str | None = typer.Option(
        None, "--withdraw-from", help="Registry whose challenger is withdrawn where it is worse."
    ),
    as_json: bool = JSON,
) -> None:
    """Compare error rates on reviewed labels; look as often as you like. Exit 3 where the challenger is worse."""
    from workzone.cli.bundle import need_eval

    need_eval("the A/B test")
    from workzone.registry.ab import judge

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
            registry = _open(withdraw_from)
            registry.withdraw(f"A/B on {found.event}: e-value {found.e_worse:.3g} after {found.discordant}")
            _tell(registry)
        raise typer.Exit(3)


@app.command("power")
def power(
    champion: float = typer.Argument(..., min=1e-6, max=0.999999, help="Share of events of the champion."),
    challenger: float = typer.Argument(..., min=1e-6, max=0.999999, help="Share that should be seen."),
    delta: float = typer.Option(0.05, "--delta", min=1e-6, max=0.5, help="Chance of telling equal ones apart."),
    chance: float = typer.Option(0.8, "--power", min=0.01, max=0.999, help="Chance of seeing it."),
    as_json: bool = JSON,
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
