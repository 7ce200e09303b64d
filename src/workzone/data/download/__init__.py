"""Explicit downloads of data sets: listed, pinned, resumed, checksummed. Nothing here runs unless it is called."""

from workzone.data.download.catalog import CATALOG, Entry
from workzone.data.download.fetch import Downloaded, download

__all__ = ["CATALOG", "Downloaded", "Entry", "download"]
