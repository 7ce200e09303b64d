"""Draw the picture of the README: test images of a run with the decisions made about them.

    python tools/contact_sheet.py demo docs/assets/decisions.jpg

Images are taken at even distances from those the run opened for evaluation, sorted by probability, so right and wrong
answers appear as they come.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from workzone.pipeline.artifacts import Artifacts
from workzone.predictions import LABELS, Predictions

COLUMNS, ROWS = 4, 3
WIDTH, HEIGHT, BAR = 300, 190, 40
COLOURS = {"roadwork": "#b45309", "no_roadwork": "#15803d", "abstain": "#525252"}


def main() -> None:
    """Write the sheet as JPEG."""
    parser = argparse.ArgumentParser(description="contact sheet of a run on drawn scenes")
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    words = parser.parse_args()
    scored = Predictions.load(Artifacts(words.run).test_scores)
    assert scored.labels is not None
    order = np.argsort(scored.columns["probability"].astype(float), kind="stable")
    rows = order[np.linspace(0, len(order) - 1, COLUMNS * ROWS).round().astype(int)]
    sheet = Image.new("RGB", (COLUMNS * WIDTH, ROWS * (HEIGHT + BAR)), "white")
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(17), ImageFont.load_default(12)
    for cell, row in enumerate(rows.tolist()):
        x, y = cell % COLUMNS * WIDTH, cell // COLUMNS * (HEIGHT + BAR)
        with Image.open(scored.columns["path"][row]) as image:
            picture = image.convert("RGB")
        scale = max(WIDTH / picture.width, HEIGHT / picture.height)
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        left, top = (picture.width - WIDTH) // 2, (picture.height - HEIGHT) // 2
        sheet.paste(picture.crop((left, top, left + WIDTH, top + HEIGHT)), (x, y))
        decision = str(scored.columns["decision"][row])
        draw.rectangle((x, y + HEIGHT, x + WIDTH - 2, y + HEIGHT + BAR - 2), fill=COLOURS[decision])
        probability = float(scored.columns["probability"][row])
        draw.text((x + 8, y + HEIGHT + 3), decision, fill="white", font=font)
        truth = f"P(roadwork) {probability:.3f}   truth: {LABELS[int(scored.labels[row])]}"
        draw.text((x + 8, y + HEIGHT + 23), truth, fill="white", font=small)
    words.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(words.out, quality=82, optimize=True)


if __name__ == "__main__":
    main()
