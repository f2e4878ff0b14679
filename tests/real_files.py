"""Where the public files are that some tests read."""

from __future__ import annotations

import os
from pathlib import Path

REAL_DATA = Path(os.environ.get("BIGCHEM_DATA", Path(__file__).parents[1] / "../shared/data")).resolve()
SCIBERT = REAL_DATA.parent / "vocab" / "scibert"
