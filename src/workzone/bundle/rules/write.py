"""Put what came of a table of predictions on disk: the rule, its card, and the report on the test images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workzone.bundle.rules.card import Card, make_card
from workzone.bundle.rules.certify import Certified, evaluated, record_values
from workzone.bundle.rules.rule import RuleFolder, write_rule
from workzone.config.run import EvaluateConfig
from workzone.evaluation.evaluate import evaluate
from workzone.evaluation.figures import Draws
from workzone.evaluation.given import TABLE, save_scores
from workzone.evaluation.summary import Summary
from workzone.files import write_atomic, write_json


def write_certified(
    c: Certified, folder: Path, settings: EvaluateConfig, *, progress: Callable[[str], None] = lambda _: None
) -> tuple[Card, Summary | None]:
    """Write the folder of a rule; the card, and the figures on the test images where there are any.

    Args:
        c: what to write.
        folder: new, empty, or the folder of an older rule, which is replaced when the new one is whole.
        settings: of the report and of every interval.
        progress: called with a few words before each step of the report.

    Raises:
        ConfigError: ``folder`` holds something else.
    """
    seed = c.settings.seed
    draws = Draws(settings.resamples, settings.interval, settings.level, settings.by_group, seed)
    card = make_card(c, draws)
    found: list[Summary] = []

    def fill(work: Path) -> None:
        places = RuleFolder(work)
        write_json(places.calibrator, c.calibrator.to_dict())
        write_json(places.policy, c.policy.to_dict())
        write_json(places.certificate, c.certificate.to_dict())
        write_json(places.calibration, c.tried)
        write_atomic(places.card, card.markdown())
        if c.test.any():
            e = evaluated(c)
            save_scores(e, places.evaluation / TABLE)
            found.append(evaluate(e, settings, places.evaluation, seed=seed, progress=progress))

    write_rule(fill, folder, record_values(c))
    return card, found[0] if found else None
