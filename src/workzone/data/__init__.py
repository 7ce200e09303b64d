"""The data contract: manifest, sources, splits, split roles and quality checks."""
