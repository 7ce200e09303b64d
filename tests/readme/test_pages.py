"""Pages agree with the code, with each other, and with the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from helpers.tools import load_tool

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
ROWS = {"A": 10, "B": 9, "C": 8, "D": 6, "E": 6, "F": 6, "G": 5, "H": 8, "I": 3, "J": 1}


@pytest.mark.parametrize("page", ["configuration.md", "command-line.md"])
def test_generated_pages_are_up_to_date(page: str) -> None:
    wanted = load_tool("make_reference").PAGES[page]().rstrip("\n") + "\n"
    assert (DOCS / "reference" / page).read_text(encoding="utf-8") == wanted, "run python tools/make_reference.py"


def test_every_command_and_key_is_in_the_reference() -> None:
    from workzone.config.load import walk_fields

    keys = (DOCS / "reference/configuration.md").read_text(encoding="utf-8")
    assert not [key for key, _ in walk_fields() if f"| `{key}` |" not in keys]
    commands = (DOCS / "reference/command-line.md").read_text(encoding="utf-8")
    for name in ("run", "demo", "predict", "verify", "evaluate", "data audit", "config show"):
        assert f"## `workzone {name}`" in commands


def test_every_key_named_in_the_pages_exists() -> None:
    from workzone.config.load import walk_fields
    from workzone.config.run import RunConfig

    known = {key for key, _ in walk_fields()}
    sections = "|".join(name for name, info in RunConfig.model_fields.items() if name not in ("data", "out", "seed"))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for key in re.findall(rf"(?<![\w./])((?:{sections})(?:\.[a-z_0-9]+)+)=", text):
            assert key in known, f"{page.name} names the key {key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_inside_the_repository_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        path = (page.parent / target.partition("#")[0]).resolve()
        assert path.exists(), f"{target} does not exist"
        if DOCS in page.parents:
            assert path.is_relative_to(DOCS), f"{target} leaves the site"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        assert page.relative_to(DOCS).as_posix() in navigation


def test_the_home_page_leads_to_every_other() -> None:
    home = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).as_posix()
        assert name == "index.md" or name.startswith("decisions/0") or f"]({name})" in home, name


def test_every_requirement_is_answered_once() -> None:
    text = (DOCS / "requirements.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| ([A-J]\d+) \| [^|]+ \| ([^|]+) \|(.*)$", text, re.MULTILINE)
    assert [row for row, _, _ in found] == [f"{letter}{n}" for letter, last in ROWS.items() for n in range(1, last + 1)]
    for row, answer, rest in found:
        assert answer.startswith(("yes", "part:", "not yet")), row
        assert answer.startswith("not yet") or "](" in rest, f"{row} works but names no page"


def test_every_decision_says_context_choice_and_consequences() -> None:
    listed = (DOCS / "decisions/index.md").read_text(encoding="utf-8")
    for page in (DOCS / "decisions").glob("0*.md"):
        text = page.read_text(encoding="utf-8")
        assert all(f"**{word}.**" in text for word in ("Context", "Choice", "Consequences")), page.name
        assert f"({page.name})" in listed


def test_the_bundle_page_states_the_limits_of_the_code() -> None:
    from workzone.bundle import schema

    page = (DOCS / "reference/bundle-schema.md").read_text(encoding="utf-8")
    assert f"Version {schema.SCHEMA_VERSION}." in page
    assert f"| size of `bundle.json` | {schema.MAX_MANIFEST_BYTES // 2**20} MiB |" in page
    assert f"| size of another JSON file | {schema.MAX_JSON_BYTES // 2**20} MiB |" in page
    assert f"| number of files | {schema.MAX_FILES:,} |" in page
    for name in schema.REQUIRED:
        assert f"`{name.partition('/')[0]}" in page


def test_the_layout_page_names_every_artifact() -> None:
    from workzone.pipeline.artifacts import Artifacts

    page = (DOCS / "reference/run-layout.md").read_text(encoding="utf-8")
    run = Artifacts(Path("run"))
    plain = [name for name, kind in vars(Artifacts).items() if isinstance(kind, property)]
    values = [getattr(run, name) for name in plain]
    for path in (p for value in values for p in (value if isinstance(value, list) else [value])):
        parts = path.relative_to("run").parts
        assert f"`{parts[0]}" in page, f"{path} is not on the page"


def test_every_method_of_the_configuration_has_its_explanation() -> None:
    from typing import get_args

    from workzone.config.run import CalibrateConfig, FuseConfig
    from workzone.models.backbones.registry import BACKBONES

    pages = [DOCS / "explanation/calibration.md", *(DOCS / "families").glob("calib*.md")]
    calibration = "".join(page.read_text(encoding="utf-8") for page in pages)
    for name in get_args(CalibrateConfig.model_fields["method"].annotation):
        assert f"`{name}`" in calibration or f"method={name}`" in calibration, name
    views = (DOCS / "explanation/views.md").read_text(encoding="utf-8")
    for name in get_args(FuseConfig.model_fields["aggregator"].annotation):
        assert f"`{name}`" in views, name
    weights = (DOCS / "how-to/backbone-and-weights.md").read_text(encoding="utf-8")
    for name in BACKBONES:
        assert f"`{name.removesuffix('_reg')}`" in weights, name


def test_targets_named_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, page.name


def test_the_gate_runs_what_the_readme_says() -> None:
    gate = (ROOT / ".ci/run").read_text(encoding="utf-8")
    commands = [line for line in gate.splitlines() if re.match(r"(exec )?(make|pip|python)", line)]
    assert commands == ["exec make test < /dev/null"]
    assert "\nmake test " in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_everything_that_is_installed_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin) for pin in pins)
    names = {plain(pin.partition("==")[0]) for pin in pins}
    assert len(names) == len(pins)
    missing = {plain(re.split(r"[\[<>=!~; ]", line)[0]) for line in wanted} - names - {"workzone"}
    assert not missing


def imported_modules(folder: Path) -> dict[str, Path]:
    """Top-level modules that the programs below a folder import, and one file that does."""
    found: dict[str, Path] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update({alias.name.partition(".")[0]: path for alias in node.names})
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found[node.module.partition(".")[0]] = path
    return found


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "tools", "examples"])
def test_programs_import_only_what_is_pinned(folder: str) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines}
    owners = packages_distributions()
    for module, path in imported_modules(ROOT / folder).items():
        names = {re.sub(r"[-_.]+", "-", name).lower() for name in owners.get(module, [])}
        assert not names or names & {*pinned, "workzone", "pip", "setuptools"}, f"{path} imports {module}"


def tracked_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [p for name in done.stdout.split("\0") if name and (p := ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_package_index() -> None:
    # Written in pieces, so that this file does not find itself.
    words = [r"(?<![\w.)-])/(?:wo" r"rk|ro" r"ot)/", "/tmp/ba" "sh", "pypi\\.or" "g", "pythonho" "sted", "index-u" "rl"]
    pattern = re.compile("|".join(words))
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {m[0]}" for m in pattern.finditer(text)]
    assert not found


def test_pictures_are_small() -> None:
    sizes = [p.stat().st_size for p in (DOCS / "assets").iterdir()]
    assert sum(sizes) < 400_000


@pytest.mark.readme
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    loads = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="?(https?:)?//', re.IGNORECASE)
    for page in pages:
        for tag in re.findall(r"<(?:script|img|iframe|link)\b[^>]*>", page.read_text(encoding="utf-8")):
            assert not loads.search(tag) or 'rel="canonical"' in tag, f"{page.name}: {tag}"


def test_every_benchmark_has_its_row() -> None:
    page = (DOCS / "explanation/benchmarks.md").read_text(encoding="utf-8")
    files = (ROOT / "benchmarks").glob("*.py")
    scripts = {path.name for path in files if "__main__" in path.read_text(encoding="utf-8")}
    assert scripts == set(re.findall(r"^\| `python benchmarks/(\w+\.py)` \|", page, flags=re.MULTILINE))
