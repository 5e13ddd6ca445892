"""Where the data that no package holds are; tests that need them are skipped without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("AIQ_DATA_DIR", Path(__file__).resolve().parents[2] / "shared" / "data"))


def real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"no {name} in the data folder; set AIQ_DATA_DIR to the folder that holds it")
    return path
