"""A detector class that a miner of the subnet can load in place of its own: Pillow image in, float out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workzone.bundle import open_bundle
from workzone.bundle.slices import unknown_slices
from workzone.decisions.remap import remap
from workzone.errors import ConfigError
from workzone.streetvision.reward import NO_ANSWER
from workzone.vision import decode, needed_side
from workzone.vision.streetvision.geometry import SIDE
from workzone.vision.views import Cutter

TIME_LIMIT = 9.0
"""Seconds after which a validator stops waiting."""
_SAFETY = 2.0
_KEPT = 0.9
_MAX_YAML_BYTES = 64 * 1024

M = TypeVar("M", bound=BaseModel)


class MinerConfig(BaseModel):
    """The YAML file that a miner names: keys as the subnet's detectors expect them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hf_repo: str = Field(description="local folder, relative to this file; a clone of the published repository")
    config_name: str | None = Field(default=None, description="YAML file in that folder with the answer settings")
    weights: str = Field(default="bundle", description="folder of the bundle in that folder")


class AnswerConfig(BaseModel):
    """How the decision of the bundle becomes an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(default=0.5, gt=0, lt=1, description="probability that is answered as 0.5")
    abstain: Literal["never", "policy"] = Field(
        default="never", description="policy: answer -1, which earns nothing in its step, where the bundle abstains"
    )
    time_limit: float = Field(default=TIME_LIMIT, gt=0, description="seconds for an answer")


class RoadworkDetector:
    """Answers with the probability of roadwork, shifted so that the chosen threshold is 0.5.

    Safe to call from several threads. Needs neither bittensor nor torch. When the image is looked at in all its views
    usually takes more than half of the time limit, only the whole picture is scored (``answers_one_view``); its
    log-odds go through the calibrator of all views, and it never abstains. The time of all views is measured when the
    detector is built and kept up to date: slow calls count at once, fast ones little by little.

    Args:
        model_name: as the subnet's registry passes it; not used otherwise.
        config_name: YAML file with the keys of ``MinerConfig``.
        device: "cpu" or "cuda", where the engine offers it.
        threads: threads of the engine, 0 for all cores.

    Raises:
        ConfigError: the YAML is missing or wrong, or names no local folder.
        BundleError: the bundle is not good.
    """

    def __init__(
        self,
        model_name: str = "WORKZONE",
        config_name: str | Path = "streetvision.yaml",
        device: str = "cpu",
        *,
        threads: int = 0,
    ) -> None:
        self.model_name = model_name
        bundle, self.answer = read_config(Path(config_name))
        self.detector = open_bundle(bundle, device=device, threads=threads)
        self._columns = unknown_slices(self.detector.calibrator)
        self._lock = threading.Lock()
        grey = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
        # The first pass pays for what the engine sets up, so only the second is counted.
        for _ in range(2):
            one, _answer = _timed(self.one_view, grey)
            self._seconds, _answer = _timed(self.all_views, grey)
        self._ratio = self._seconds / max(one, 1e-6)

    def __call__(self, image: Image.Image) -> float:
        """Answer in [0, 1], above 0.5 for roadwork, or -1 where the settings say to abstain.

        Raises:
            ImageError: the image cannot be used.
        """
        if self.answers_one_view:
            seconds, answer = _timed(self.one_view, image)
            self._learn(seconds * self._ratio)
        else:
            seconds, answer = _timed(self.all_views, image)
            self._learn(seconds)
        return answer

    @property
    def answers_one_view(self) -> bool:
        """Whether all views would take too much of the time limit at present."""
        with self._lock:
            return self._seconds * _SAFETY > self.answer.time_limit

    def all_views(self, image: Image.Image) -> float:
        """Answer from all views of the bundle, whatever time it takes."""
        decision = self.detector(image, columns=self._columns)
        if self.answer.abstain == "policy" and decision.label == "abstain":
            return NO_ANSWER
        return self._shifted(decision.probability)

    def one_view(self, image: Image.Image) -> float:
        """Answer from the whole picture alone; of several models by the cheapest."""
        detector = self.detector.models[0]
        cutter = Cutter(decode(image, min_side=needed_side(detector.preprocessing)), detector.preprocessing)
        embedding = detector.engine.embed(cutter.cut([0]))
        scores = detector.engine.aggregate(embedding[None], cutter.boxes[None, :1], np.ones((1, 1), dtype=np.bool_))
        return self._shifted(float(detector.calibrator(scores.log_odds)[0]))

    def _shifted(self, probability: float) -> float:
        return float(remap(np.array([probability]), self.answer.threshold)[0])

    def _learn(self, seconds: float) -> None:
        with self._lock:
            self._seconds = max(seconds, _KEPT * self._seconds + (1 - _KEPT) * seconds)


def _timed(answer: Callable[[Image.Image], float], image: Image.Image) -> tuple[float, float]:
    start = time.monotonic()
    found = answer(image)
    return time.monotonic() - start, found


def read_config(path: Path) -> tuple[Path, AnswerConfig]:
    """Folder of the bundle and answer settings that the miner's YAML at ``path`` names.

    Raises:
        ConfigError: a file is missing or wrong, or ``hf_repo`` is no local folder.
    """
    config = _read(path, MinerConfig)
    repository = path.parent / Path(config.hf_repo).expanduser()
    if not repository.is_dir():
        raise ConfigError(
            f"hf_repo {config.hf_repo!r} is no local folder, and this detector downloads nothing",
            where=str(path),
            fix="download the repository and write the path of its folder",
        )
    answer = AnswerConfig() if config.config_name is None else _read(repository / config.config_name, AnswerConfig)
    return repository / config.weights, answer


def _read(path: Path, model: type[M]) -> M:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_YAML_BYTES + 1)
        if len(content) > _MAX_YAML_BYTES:
            raise ValueError(f"it is larger than {_MAX_YAML_BYTES} bytes")
        # Not resolved: a file from elsewhere must not read the environment.
        values = OmegaConf.to_container(OmegaConf.create(content.decode("utf-8")), resolve=False)
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{key}: {first['msg']}", where=str(path), fix=f"keys are {', '.join(model.model_fields)}"
        ) from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).split("\n")[0]
        raise ConfigError(f"the detector's YAML cannot be read: {reason}", where=str(path)) from error
