"""Decide on images with a bundle and act on the answer; needs the core installation only.

    python examples/predict_with_python.py BUNDLE IMAGE...
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from workzone import Detector
from workzone.errors import ImageError, WorkzoneError


def main() -> int:
    """Print one line per image; 1 when an image could not be read, as ``workzone predict`` does."""
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    images = [Path(word) for word in sys.argv[2:]]
    try:
        detector = Detector.load(sys.argv[1])
    except WorkzoneError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    for sentence in detector.certificate.sentences():
        print(sentence)

    unreadable: list[int] = []

    def skip(index: int, error: ImageError) -> None:
        unreadable.append(index)
        print(f"{images[index]}: {error.reason}", file=sys.stderr)

    counts: Counter[str] = Counter()
    for index, decision in detector.predict(images, on_error=skip):
        counts[decision.label] += 1
        print(f"{images[index]}: {decision.label}, P(roadwork) {decision.probability:.3f}, {decision.reason}")
        if decision.label == "abstain":
            # The part of the image that spoke most for roadwork is where a person should look first.
            view = max(decision.views, key=lambda v: v.log_odds)
            print("  look at x {:.0%} to {:.0%}, y {:.0%} to {:.0%}".format(*(view.box[i] for i in (0, 2, 1, 3))))
    print(", ".join(f"{count} {label}" for label, count in sorted(counts.items())) or "nothing decided")
    return 1 if unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
