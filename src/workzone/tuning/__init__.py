"""Ablations and sweeps: many runs that differ in some keys, judged on images held out of ``train`` and ``val_select``.

The roles ``val_calib`` and ``val_test`` of the run are never looked at here.
"""
