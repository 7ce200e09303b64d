"""The detector as a model of MLflow, from code: base64 text in, decisions out."""

from __future__ import annotations

import base64
import os
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class Roadwork(PythonModel):  # type: ignore[misc]
    """Column ``image`` of base64 text."""

    def load_context(self, context: Any) -> None:
        from workzone import Detector

        self.detector = Detector.load(os.environ["PEER_BUNDLE"], threads=1)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # hints become a schema
        found = [self.detector(base64.b64decode(text)) for text in model_input["image"]]
        return [{"decision": d.label, "probability": d.probability} for d in found]


mlflow.models.set_model(Roadwork())
