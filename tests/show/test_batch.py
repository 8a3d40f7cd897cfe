"""From files to files: what is checked first, and the names of results."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import salience as sal
from salience.show.batch import Request, explain_files, stems_of


@pytest.mark.parametrize("method", ["noisegrad:base=(rise:samples=5)", "smoothgrad:base=(noisegrad:base=(rise:samples=5))", "beta_smoothing:base=(rise:samples=5)"])
def test_a_black_box_is_refused_before_anything_is_written(tmp_path, monkeypatch, method):
    (tmp_path / "boxes.py").write_text("import salience as sal\ndef box(): return sal.BlackBox(lambda x: x.mean((2, 3)), size=16)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "boxes", raising=False)
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(tmp_path / "a.png")
    request = Request([tmp_path / "a.png"], tmp_path / "out", ["rise:samples=5,grid=3", method], "python:boxes:box")
    with pytest.raises(sal.InputError, match=r"needs the gradients and layers of the network, and .* is a black box"):
        list(explain_files(request, lambda *_: None))
    assert not (tmp_path / "out").exists()


def test_a_black_box_takes_input_noise_around_masks(tmp_path, monkeypatch):
    (tmp_path / "boxes.py").write_text("import salience as sal\ndef box(): return sal.BlackBox(lambda x: x.mean((2, 3)), size=16)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "boxes", raising=False)
    path = tmp_path / f"{'猫' * 70}.png"
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(path)
    request = Request([path], tmp_path / "out", ["smoothgrad:samples=2,base=(rise:samples=5,grid=3)"], "python:boxes:box")
    rows = [row for row, _ in explain_files(request, lambda *_: None)]
    assert len(rows) == 1
    assert Path(rows[0].map).is_file()


def test_stems_are_cut_by_bytes_between_letters():
    assert stems_of([Path("a" * 200 + ".png"), Path("A" * 200 + ".png")]) == ["a" * 100, "A" * 100 + "-2"]
    assert stems_of([Path("猫" * 80 + ".png"), Path("猫" * 33 + ".png")]) == ["猫" * 33, "猫" * 33 + "-2"]
    assert stems_of([Path("🐈" * 60 + ".png")]) == ["🐈" * 25]
