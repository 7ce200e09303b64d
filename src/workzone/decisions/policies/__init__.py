"""Policies, one file each; ``base``, ``coverage``, ``exits`` and ``sets`` hold what several of them share."""
