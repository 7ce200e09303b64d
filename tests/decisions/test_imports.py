"""What the predict path loads stays light."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import numpy as np
from workzone.calibration import from_dict as calibrator
from workzone.decisions import from_dict as policy
p = calibrator({"method": "platt", "parameters": {"slope": 1.0, "intercept": 0.0}})(np.array([0.3, -0.2]))
d = policy({"policy": "argmax", "parameters": {"threshold": 0.5}}).decide(p)
assert d.codes.tolist() == [1, 0]
print(",".join(m for m in ("scipy", "torch", "polars", "matplotlib", "sklearn") if m in sys.modules))
"""


def test_deciding_with_stored_numbers_needs_numpy_and_pydantic_only() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
