"""The detector behind a FastAPI route, as one writes it in ten lines."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

from workzone import Detector

app = FastAPI()
detector = Detector.load(os.environ["PEER_BUNDLE"], threads=2)


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    decision = await run_in_threadpool(detector, await request.body())
    return {"decision": decision.label, "probability": decision.probability}
