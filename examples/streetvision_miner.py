"""Answer a StreetVision challenge with a published folder: python streetvision_miner.py FOLDER IMAGE...

In a miner, register the class under a name of your own:

    @DETECTOR_REGISTRY.register_module(module_name="WORKZONE")
    class WorkzoneDetector(RoadworkDetector): ...

and give the path of the YAML as its config_name. The published folder must lie on this machine.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

from PIL import Image

from workzone.streetvision.adapter import RoadworkDetector


def answer(detector: RoadworkDetector, challenge: str) -> float:
    """Answer to the base64 JPEG that a validator sends."""
    return detector(Image.open(io.BytesIO(base64.b64decode(challenge))))


def main() -> None:
    """Send the images through the wire format and print an answer for each."""
    folder, *images = sys.argv[1:]
    detector = RoadworkDetector(config_name=Path(folder) / "streetvision.yaml", device="cpu")
    for image in images:
        buffer = io.BytesIO()
        Image.open(image).convert("RGB").resize((224, 224)).save(buffer, format="JPEG")
        print(f"{answer(detector, base64.b64encode(buffer.getvalue()).decode()):.4f}  {image}")


if __name__ == "__main__":
    main()
