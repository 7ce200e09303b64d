"""Bulk scoring: millions of images to shards of predictions, on one machine or on a cluster, each image once."""

from __future__ import annotations

from workzone.scoring.plan import Options
from workzone.scoring.run import Launch, score_images

__all__ = ["Launch", "Options", "score_images"]
