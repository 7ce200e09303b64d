from __future__ import annotations

import sys
from pathlib import Path

# importlib mode does not put this folder on the path, and the toy phases are shared by several files here.
sys.path.insert(0, str(Path(__file__).parent))
