from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
# importlib mode does not put these folders on the path.
sys.path[:0] = [str(HERE), str(HERE.parent)]
