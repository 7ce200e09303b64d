"""A bundle of bundles: several models, one cascade over them, one certificate for the whole.

bundle.json            schema version 2, kind cascade: members and own files by hash, lineage, and a hash of itself
calibrator.json        log-odds of the last stage to probability
policy.json            the cascade: stages of all members, their calibrators and operating points
certificate.json       what is promised by the cascade, and for which members
metrics.json           figures on the test role, with intervals
golden/                images with the answers this cascade must give
MODEL_CARD.md          for people
members/1, members/2   whole bundles, the cheapest first; their own policies and certificates have no part in this one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from workzone import calibration, decisions
from workzone.bundle import schema
from workzone.bundle.cascade import Look, look_through
from workzone.bundle.runtime import Decider, Detector
from workzone.calibration import Calibrator
from workzone.decisions import Certificate
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.errors import BundleError, WorkzoneError
from workzone.files import sha256_json
from workzone.vision import decode
from workzone.vision.batch import Source
from workzone.vision.views import needed_side

CHAIN_VERSION = 2
MEMBERS = "members"
MAX_MEMBERS = 8
REQUIRED = (
    schema.CALIBRATOR,
    schema.POLICY,
    schema.CERTIFICATE,
    schema.METRICS,
    schema.CARD,
    schema.GOLDEN_CASES,
)


class MemberEntry(schema.Strict):
    """One member; the hash is that of its own ``bundle.json``, which pins every byte of it."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    backbone: str
    engine: str


class ChainManifest(schema.Strict):
    """Content of ``bundle.json`` of a cascade."""

    schema_version: Literal[2]
    kind: Literal["cascade"]
    name: str
    created: str
    workzone_version: str
    members: tuple[MemberEntry, ...] = Field(min_length=2, max_length=MAX_MEMBERS)
    files: dict[str, schema.FileEntry] = Field(max_length=schema.MAX_FILES)
    lineage: dict[str, Any]
    sha256: str = Field(description="hash of this object without this key")


@dataclass(frozen=True, slots=True)
class CascadeDetector(Decider):
    """A loaded cascade of several models; engine and preprocessing are those of the last one.

    Attributes:
        manifest: content of ``bundle.json``.
        members: the models, the cheapest first.
    """

    manifest: ChainManifest
    members: tuple[Detector, ...]

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu", threads: int = 0, check_hashes: bool = True) -> Self:
        """Open the cascade in ``folder``; no code from the files is run.

        Args:
            folder: the folder that holds ``bundle.json`` and ``members``.
            device: see ``Detector.load``.
            threads: see ``Detector.load``; of each member.
            check_hashes: compare every file with its hash first.

        Raises:
            BundleError: unknown schema, changed or missing files or members, void certificate.
        """
        root = Path(folder)
        manifest = read_chain(root)
        if check_hashes and (problems := check_chain_files(root, manifest)):
            raise BundleError("; ".join(problems[:3]), where=str(root), fix="take the original bundle or make it again")
        members = tuple(
            Detector.load(member_folder(root, number), device=device, threads=threads, check_hashes=False)
            for number in range(1, len(manifest.members) + 1)
        )
        return cls.assemble(root, manifest, members)

    @classmethod
    def assemble(cls, root: Path, manifest: ChainManifest, members: tuple[Detector, ...]) -> Self:
        """The cascade of opened ``members`` and the small files in ``root``.

        Raises:
            BundleError: malformed files, a policy that is no cascade of these members, or a void certificate.
        """
        stored = schema.read_json_bounded(root / schema.CALIBRATOR)
        if not isinstance(stored, dict):
            raise BundleError("calibrator.json is not an object", where=str(root))
        calibrator = calibration.from_dict(stored)
        policy = decisions.from_dict(schema.read_json_bounded(root / schema.POLICY))
        if not isinstance(policy, CascadePolicy) or len(policy.plan.models) != len(members) or calibrator.needs:
            raise BundleError(f"the policy is no cascade of {len(members)} models", where=str(root / schema.POLICY))
        certificate = schema.read_model(root / schema.CERTIFICATE, Certificate)
        hashes = [m.manifest.sha256 for m in members]
        if [entry.sha256 for entry in manifest.members] != hashes:
            raise BundleError("a member is not the one that bundle.json names", where=str(root / MEMBERS))
        if problems := chain_void_reasons(members, calibrator, policy, certificate):
            raise BundleError(
                f"the certificate is void: {'; '.join(problems)}", where=str(root), fix="make the cascade again"
            )
        last = members[-1]
        return cls(root, last.preprocessing, last.engine, calibrator, policy, certificate, manifest, members)

    @property
    def models(self) -> tuple[Decider, ...]:
        """See ``Decider``."""
        return self.members

    def _see(self, picture: Source, max_pixels: int, *, side_by_side: bool = False) -> Look:
        """See ``Decider``; the picture is decoded once, or as often as members need another size of it."""
        assert isinstance(self.policy, CascadePolicy)
        decoded: dict[int, Any] = {}

        def image(pre: Any) -> Any:
            side = needed_side(pre)
            if side not in decoded:
                decoded[side] = decode(picture, max_pixels=max_pixels, min_side=side)
            return decoded[side]

        parts = [(m.preprocessing, m.engine) for m in self.members]
        seen = look_through(image, parts, self.policy, side_by_side=side_by_side)
        self._require_numbers(seen.scores)
        return seen


AnyDetector = Detector | CascadeDetector
"""An opened bundle, of one model or a cascade of several."""


def open_bundle(
    folder: Path | str, *, device: str = "cpu", threads: int = 0, check_hashes: bool = True
) -> AnyDetector:
    """The bundle in ``folder``, of one model or a cascade of several; raises BundleError as their ``load`` does."""
    kind = CascadeDetector if schema.is_cascade(Path(folder)) else Detector
    return kind.load(folder, device=device, threads=threads, check_hashes=check_hashes)


def read_bundle(folder: Path) -> schema.BundleManifest | ChainManifest:
    """``bundle.json`` of either kind, read and checked; raises BundleError with the reason."""
    return read_chain(folder) if schema.is_cascade(folder) else schema.read_manifest(folder)


def check_bundle_files(folder: Path, manifest: schema.BundleManifest | ChainManifest) -> list[str]:
    """Compare every file of a bundle of either kind with its hash; one sentence per difference."""
    if isinstance(manifest, ChainManifest):
        return check_chain_files(folder, manifest)
    return schema.check_files(folder, manifest)


def member_folder(folder: Path, number: int) -> Path:
    """Folder of member ``number``, from 1."""
    return folder / MEMBERS / str(number)


def read_chain(folder: Path) -> ChainManifest:
    """Read and check ``bundle.json`` of a cascade; raises BundleError with the reason."""
    manifest = schema.read_sealed(folder, ChainManifest, CHAIN_VERSION)
    path = str(folder / schema.MANIFEST)
    for name in manifest.files:
        if name not in REQUIRED and not schema.GOLDEN_FILE.fullmatch(name):
            raise BundleError(f"{name[:200]!r} has no place in a cascade: the set of files is closed", where=path)
    if missing := [name for name in REQUIRED if name not in manifest.files]:
        raise BundleError(f"the cascade lacks {missing[0]}", where=path)
    return manifest


def check_chain_files(folder: Path, manifest: ChainManifest) -> list[str]:
    """Compare every file of the cascade and of its members with its hash; one sentence per difference."""
    problems = schema.check_listed(folder, manifest.files, apart=(MEMBERS,))
    wanted = {str(n): entry for n, entry in enumerate(manifest.members, start=1)}
    place = folder / MEMBERS
    if place.is_symlink() or not place.is_dir():
        return [*problems, f"{MEMBERS} is not a folder"]
    extra = sorted(p.name for p in place.iterdir() if p.name not in wanted)
    problems += [f"{MEMBERS}/{name} does not belong to the bundle" for name in extra]
    for number, entry in wanted.items():
        member = place / number
        if member.is_symlink() or not member.is_dir():
            problems.append(f"{MEMBERS}/{number} is not a folder")
            continue
        try:
            found = schema.read_manifest(member)
            wrong = schema.check_files(member, found)
            if found.sha256 != entry.sha256:
                wrong = ["it is another bundle than the one that the certificate was issued for"]
        except WorkzoneError as error:
            wrong = [error.what]
        problems += [f"{MEMBERS}/{number}: {text}" for text in wrong]
    return problems


def chain_void_reasons(
    members: Sequence[Detector], calibrator: Calibrator, policy: CascadePolicy, certificate: Certificate
) -> list[str]:
    """Why the certificate does not belong to these members and parts; empty where it does."""
    parts = bound_parts(members)
    parts |= {"calibrator_sha256": sha256_json(calibrator.to_dict()), "policy_sha256": sha256_json(policy.to_dict())}
    return [
        f"it was issued for another {name.removesuffix('_sha256')}"
        for name, value in parts.items()
        if getattr(certificate, name) != value
    ]


def bound_parts(members: Sequence[Detector]) -> dict[str, str]:
    """What a certificate of a cascade says of its members: names and hashes, in their order."""
    engines = (f"{m.manifest.engine.name}-{m.manifest.engine.precision}" for m in members)
    return {
        "engine": " > ".join(engines),
        "engine_sha256": sha256_json([schema.engine_sha256(m.manifest) for m in members]),
        "preprocessing_sha256": sha256_json([m.preprocessing.model_dump(mode="json") for m in members]),
    }
