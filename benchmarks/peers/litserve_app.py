"""The detector behind LitServe, one process a core; pictures come as base64 in JSON, which is what LitServe parses."""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

import litserve

from workzone import Detector


class RoadworkAPI(litserve.LitAPI):  # type: ignore[misc]
    """Picture in, decision out."""

    def setup(self, device: str) -> None:
        self.detector = Detector.load(os.environ["PEER_BUNDLE"], threads=1)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # an annotation would become a schema
        return base64.b64decode(request["image"])

    def predict(self, content: bytes) -> Any:
        return self.detector(content)

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        return {"decision": output.label, "probability": output.probability}


if __name__ == "__main__":
    server = litserve.LitServer(RoadworkAPI(), accelerator="cpu", workers_per_device=2, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
