"""A command of the operator: start a labelling task, a retraining, a rollback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from workzone.monitoring.alerts.base import Alarm, DeliveryError, Notifier, subject


class Command(Notifier):
    """Runs a program without a shell, with the alarms as JSON on its standard input; exit code 0 is success."""

    kind: Literal["command"] = "command"
    command: tuple[str, ...] = Field(min_length=1, description="program and arguments")
    retries: int = Field(default=0, ge=0, le=10, description="a rollback that half happened is not to be tried again")

    def send(self, alarms: Sequence[Alarm]) -> None:
        """Run to the end or to the time limit."""
        given = json.dumps({"subject": subject(alarms), "alarms": [a.to_dict() for a in alarms]})
        try:
            done = subprocess.run(self.command, input=given, text=True, timeout=self.timeout, stdout=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise DeliveryError(f"{self.command[0]} took longer than {self.timeout:g} seconds") from None
        except OSError as error:
            raise DeliveryError(f"{self.command[0]} cannot be run: {error.strerror or error}", retry=False) from None
        if done.returncode:
            raise DeliveryError(f"{self.command[0]} ended with exit code {done.returncode}")
