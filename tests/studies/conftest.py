"""Pictures for studies to be run on."""

import numpy as np
import pytest
from PIL import Image
from small_study import STUDY


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with four pictures and a study file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    draw = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path
