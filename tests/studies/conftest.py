"""Pictures for studies to be run on, and a study that was run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_study import STUDY, kept

from salience.studies.run import run_study
from salience.studies.store import Store


def fill(folder: Path) -> Path:
    (folder / "pictures").mkdir()
    draw = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / "pictures" / f"{number}.png")
    (folder / "study.yaml").write_text(STUDY)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with four pictures and a study file."""
    monkeypatch.chdir(tmp_path)
    return fill(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(fill(tmp_path_factory.mktemp("finished")))
        patch.setenv("SALIENCE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return run_study(kept(), "whole").folder.absolute()


@pytest.fixture
def whole(folder, finished):
    """The study of the file, with its maps, run to its end in the folder ``whole``; it was run once for all tests."""
    return Store(shutil.copytree(finished, "whole"))
