"""Audit of a split: groups, copies, near copies and crops that one role shares with another."""
