"""Fixtures of the torch half."""

from helpers.networks import one_thread, tiny

__all__ = ["one_thread", "tiny"]
