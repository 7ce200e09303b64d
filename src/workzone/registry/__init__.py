"""Versions of bundles, who serves, who follows, and the evidence that decides it."""
