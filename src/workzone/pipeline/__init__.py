"""Phases, the engine that runs them, and every path of a run."""
