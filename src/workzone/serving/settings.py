"""Every setting of the server, as one object that also travels to worker processes."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workzone.errors import ConfigError
from workzone.vision.decode import MAX_BYTES

ENVIRONMENT = "WORKZONE_SERVE"
MIB = 1024 * 1024


class ServeSettings(BaseModel):
    """Settings of one server.

    Raises:
        ConfigError: from ``require_safe_bind``, where anybody could reach a server without keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: Path = Field(description="folder, or with registry a version or alias")
    registry: str | None = Field(default=None, description="folder of a registry, as path or file:// URL")
    challenger: str | None = Field(default=None, description="as bundle, answers a share of the requests")
    share: float = Field(default=0.0, ge=0, le=1, description="of requests that the challenger answers")
    salt: str = Field(default="", max_length=200, description="of the split, one for each experiment")
    stop_event: Literal["wrong", "not_right", "missed", "false_alarm"] = "wrong"
    stop_delta: float = Field(default=0.05, gt=0, le=0.5, description="chance of ever stopping an equal challenger")
    shadow: str | None = Field(default=None, description="as bundle, decides on the same images and answers nobody")
    shadow_queue: int = Field(default=16, ge=1, le=1024, description="images that may wait for the shadow")
    shadow_seconds: float = Field(default=10.0, gt=0, description="age at which an image is dropped for the shadow")
    budget: float | None = Field(default=None, gt=0, description="of the champion's cascade, see Decider.at_budget")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=64, description="processes")
    threads: int = Field(default=0, ge=0, description="passes of the network side by side in each process, 0: cores")
    max_queue: int = Field(default=64, ge=1, description="images that may wait in each process")
    batch_size: int = Field(default=8, ge=1, le=256, description="images handed to the threads at once")
    batch_wait_ms: float = Field(default=0.0, ge=0, le=1000, description="how long a batch waits to fill")
    deadline_ms: int = Field(default=10_000, ge=1, description="longest time of a request, and the default")
    body_seconds: float = Field(default=30.0, gt=0, description="longest time a client may take to send its request")
    # Above the 60 seconds for which the usual proxies keep theirs: whoever closes first must not be the server, or a
    # proxy sends a request into a connection that has just gone and answers 502.
    keep_alive_seconds: int = Field(default=75, ge=1, description="how long a connection without a request stays open")
    max_bytes: int = Field(default=32 * MIB, ge=1, le=16 * MAX_BYTES, description="largest request")
    max_memory: int = Field(default=512 * MIB, ge=1, description="bytes of all requests held at once in each process")
    max_images: int = Field(default=16, ge=1, description="images of one request")
    max_pixels: int = Field(default=50_000_000, ge=1, description="pixels of one image")
    api_key_file: Path | None = None
    insecure: bool = Field(default=False, description="allow other machines to connect without a key")
    refuse_void: bool = Field(default=False, description="answer 503 while the certificate is void")
    check_seconds: float = Field(default=60.0, ge=0, description="time between checks of the certificate, 0: never")
    drain_seconds: float = Field(default=1.0, ge=0, description="time between not ready and closing, on SIGTERM")
    grace_seconds: int = Field(default=30, ge=1, description="time to finish what was accepted, on SIGTERM")
    log_db: Path | None = None
    log_embeddings: bool = False
    log_max_mb: float = Field(default=256.0, gt=0, description="size of the log above which the oldest rows move out")
    log_max_days: float = Field(default=30.0, gt=0, description="age of the rows that move out")
    keep_abstained: Path | None = Field(default=None, description="folder of pictures for the review queue")
    keep_share: float = Field(default=0.0, ge=0, le=1, description="of all pictures, kept whatever the answer")
    monitor: Path | None = Field(default=None, description="folder of workzone monitor, whose gauges are shown too")
    keep_max_mb: float = Field(default=1024.0, gt=0, description="size of that folder at which keeping stops")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max_images > self.max_queue:
            raise ValueError("max_images must not exceed max_queue, or a full request could never be accepted")
        if self.max_memory < self.max_bytes:
            raise ValueError("max_memory must be at least max_bytes, or a full request could never be accepted")
        if (self.challenger is None) != (self.share == 0):
            raise ValueError("challenger and share belong together: name a bundle, and its share above 0")
        if self.keep_share and self.keep_abstained is None:
            raise ValueError("keep_share needs keep_abstained, the folder for the pictures")
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def require_safe_bind(self) -> None:
        """Raise ConfigError where other machines could connect without a key and nobody said so on purpose."""
        if self.api_key_file is None and not self.on_loopback and not self.insecure:
            raise ConfigError(
                f"without API keys the server listens on this machine only, not on {self.host}",
                where="--host",
                fix="add --api-key-file FILE, or --insecure where a proxy in front checks who asks",
            )

    def to_environment(self) -> None:
        """Leave the settings where worker processes find them."""
        os.environ[ENVIRONMENT] = self.model_dump_json()

    @classmethod
    def from_environment(cls) -> Self:
        """What ``to_environment`` left.

        Raises:
            ConfigError: nothing was left.
        """
        text = os.environ.get(ENVIRONMENT)
        if text is None:
            raise ConfigError("the server was started without settings", fix="start it with: workzone serve BUNDLE")
        return cls.model_validate_json(text)
