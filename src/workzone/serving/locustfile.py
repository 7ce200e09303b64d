"""What each user of a load test does; run by Locust in a process of its own, see ``workzone.serving.load``.

Locust changes sockets and threads of the whole process when it is imported, so nothing else may import this file.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task

from workzone.serving.load import KEY, OUT, PAUSE, PICTURES

_pictures = [Path(p).read_bytes() for p in json.loads(os.environ[PICTURES])]
_numbers = count()
_milliseconds: list[float] = []
_statuses: Counter[str] = Counter()


class Asker(FastHttpUser):
    """Sends one picture after another and waits for each answer."""

    wait_time = constant(float(os.environ[PAUSE]))
    network_timeout = connection_timeout = 120.0
    max_retries = 0

    @task
    def predict(self) -> None:
        """One picture, as its bytes."""
        headers = {"Content-Type": "application/octet-stream"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        picture = _pictures[next(_numbers) % len(_pictures)]
        data: Any = picture  # bytes are sent as they are, which its annotation does not say
        with self.client.post("/v1/predict", data=data, headers=headers, catch_response=True) as answer:
            _statuses[str(answer.status_code)] += 1
            if answer.status_code == 200 and "decision" in answer.json():
                answer.success()
            else:
                answer.failure(f"status {answer.status_code}")


def _one(response_time: float, exception: Exception | None, **_: Any) -> None:
    if exception is None:
        _milliseconds.append(round(response_time, 3))


def _end(environment: Any, **_: Any) -> None:
    total = environment.stats.total
    seconds = max(total.last_request_timestamp - total.start_time, 0.0) if total.last_request_timestamp else 0.0
    told = {"milliseconds": _milliseconds, "statuses": dict(_statuses), "seconds": seconds}
    Path(os.environ[OUT]).write_text(json.dumps(told))


_hooks: Any = events
_hooks.request.add_listener(_one)
_hooks.quitting.add_listener(_end)
