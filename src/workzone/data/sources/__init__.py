"""Data sources: each turns files in a published layout into rows of a manifest; ``build_manifest`` does the rest."""
