"""The loop: what it writes, that it goes on exactly where it was killed, and what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from made_pictures import labelled, striped
from PIL import Image
from safetensors.torch import load_file

import salience as sal
from salience.training import loop
from salience.training.folder import Folder
from salience.training.loop import train
from salience.training.pictures import Pictures
from salience.training.recipe import list_recipes
from salience.training.standard import Standard

SMALL = "standard:epochs=3,batch=32,rate=0.01,flip=true,shift=1"
CODE = """
import sys
from pathlib import Path
from made_pictures import labelled
from salience.training import loop
loop.CHECKPOINT_SECONDS = 0.0
out, recipe, step, precision, start = sys.argv[1:]
def report(what, done, total):
    if what == "training" and done == int(step):
        Path(out + ".there").touch()
        import time
        time.sleep(60)
loop.train(recipe, "lenet", labelled(recipe, 96), out, test=labelled(recipe, 16), start=start or None, attacked=0, threads=1, precision=precision, report=report)
"""


def tensors(folder):
    return load_file(folder / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its card."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    return folder, train(SMALL, "resnet9:width=4", striped(128), folder, test=striped(64, 1), attacked=8)


def test_it_learns_and_writes_everything(finished):
    folder, card = finished
    assert {path.name for path in folder.iterdir()} >= {"run.json", "checkpoint.safetensors", "log.jsonl", "curves.png", "model.safetensors", "card.json", "card.md"}
    assert card["accuracy"]["value"] > 0.9
    assert card["accuracy"]["low"] <= card["accuracy"]["value"] <= card["accuracy"]["high"]
    assert (card["accuracy"]["images"], card["pgd"]["images"]) == (64, 8)
    assert json.loads((folder / "card.json").read_text()) == {"format": 1} | card
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["loss"] > rows[2]["loss"]
    with Image.open(folder / "curves.png") as picture:
        assert picture.size[0] > 500
    text = (folder / "card.md").read_text()
    assert f"SHA-256 {card['sha256']}" in text
    assert "resnet9:width=4,classes=4" in text


def test_a_finished_run_is_a_model(finished):
    folder, card = finished
    model = sal.load_model(f"trained:{folder}")
    test = striped(64, 1)
    hits = (model.outputs(test.pixels()).argmax(1) == test.labels).float().mean().item()
    assert hits == pytest.approx(card["accuracy"]["value"], abs=1e-4)
    assert (model.size, list(model.labels), model.crop_fraction, model.carried_weight_sigma) == ((32, 32), list(test.classes), 1.0, card["weight_sigma"])
    assert sal.explain("gradient", model, test.pixels(slice(2))).maps.shape[-2:] == (32, 32)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(finished, tmp_path):
    folder, _ = finished
    torch.manual_seed(5)
    state = torch.get_rng_state()
    train(SMALL, "resnet9:width=4", striped(128), tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), state)
    assert same(tensors(folder), tensors(tmp_path / "again"))
    train(SMALL, "resnet9:width=4", striped(128), tmp_path / "other", seed=1)
    assert not same(tensors(folder), tensors(tmp_path / "other"))


@pytest.mark.parametrize(
    ("recipe", "step", "precision"),
    [
        ("standard:epochs=3,batch=32,rate=0.005", 4, "float32"),
        ("adversarial:epochs=2,batch=32,steps=1,momentum=0.9,rate=0.01", 5, "bfloat16"),
        ("cure:epochs=2,batch=32,rate=0.001,radius=0.5+1.5,flip=true", 5, "float32"),
        ("multilabel:epochs=2,batch=32,rate=0.005,shift=2,degrees=5", 2, "float32"),
    ],
)
def test_killed_and_continued_gives_the_same_weights(tmp_path, recipe, step, precision):
    """Killed with signal 9 after an epoch, and within one; AdamW and momentum; both precisions; every recipe."""
    start = str(tmp_path / "first") if recipe.startswith("cure") else ""
    if start:
        train("standard:epochs=1,batch=32,rate=0.005", "lenet", striped(96), start, threads=1)
    folders = (Path(__file__).parents[1] / "support", Path(sal.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path / "killed"), recipe, str(step), precision, start], env=environment)
    try:
        waited = time.monotonic() + 60
        while not (tmp_path / "killed.there").exists():
            assert process.poll() is None
            assert time.monotonic() < waited
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    folder = Folder(tmp_path / "killed")
    assert int(folder.read_checkpoint()["place.step"]) + 3 * int(folder.read_checkpoint()["place.epoch"]) == step - 1
    assert not (tmp_path / "killed" / "card.json").exists()
    data, test = labelled(recipe, 96), labelled(recipe, 16)
    train(recipe, "lenet", data, tmp_path / "killed", test=test, start=start or None, attacked=0, threads=1, precision=precision, resume=True)
    train(recipe, "lenet", data, tmp_path / "whole", test=test, start=start or None, attacked=0, threads=1, precision=precision)
    assert same(tensors(tmp_path / "killed"), tensors(tmp_path / "whole"))
    first, second = ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("killed", "whole"))
    assert [json.loads(row)["loss"] for row in first] == [json.loads(row)["loss"] for row in second]


def test_every_recipe_was_killed():
    """The recipes of the test above are all that there are."""
    (mark,) = test_killed_and_continued_gives_the_same_weights.pytestmark
    assert {recipe.partition(":")[0] for recipe, *_ in mark.args[1]} == set(list_recipes())


def test_dropout_is_drawn_by_step(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    class StopError(Exception):
        pass

    def stop(what, done, total):
        if what == "training" and done == 2:
            raise StopError

    options = ("standard:epochs=1,batch=4,rate=0.01", "torchvision:mobilenet_v3_small", striped(12))
    with pytest.raises(StopError):
        train(*options, tmp_path / "stopped", report=stop)
    train(*options, tmp_path / "stopped", resume=True)
    train(*options, tmp_path / "whole")
    assert same(tensors(tmp_path / "stopped"), tensors(tmp_path / "whole"))


def test_another_run_is_refused(finished):
    folder, card = finished
    data, test = striped(128), striped(64, 1)
    where = str(folder).replace("\\", "\\\\")
    with pytest.raises(sal.InputError, match=rf"^{where} holds a training run already: continue it with --resume, or choose another folder with --out\.$"):
        train(SMALL, "resnet9:width=4", data, folder, test=test)
    assert train(SMALL, "resnet9:width=4", data, folder, test=test, resume=True)["sha256"] == card["sha256"]
    for recipe, architecture, changed, seed, what in [
        ("standard:epochs=4,batch=32,rate=0.01,flip=true,shift=1", "resnet9:width=4", data, 0, "epochs was 3 and is 4"),
        ("adversarial", "resnet9:width=4", data, 0, "the recipe was standard and is adversarial"),
        (SMALL, "resnet9:width=5", data, 0, "the architecture was resnet9:width=4,classes=4 and is resnet9:width=5,classes=4"),
        (SMALL, "resnet9:width=4", striped(128, 2), 0, "the training pictures or their labels have changed"),
        (SMALL, "resnet9:width=4", data, 7, "the seed was 0 and is 7"),
        (SMALL, "resnet9:width=4", Pictures(data.images, data.labels.flip(0), data.classes, data.name), 0, "the training pictures or their labels have changed"),
    ]:
        with pytest.raises(sal.InputError, match=rf"^{where} holds another training run: {what}\. Undo the change, or train in a new folder\.$"):
            train(recipe, architecture, changed, folder, test=test, seed=seed, resume=True)
    for options, what in [
        ({"precision": "bfloat16"}, "the precision was float32 and is bfloat16"),
        ({"threads": 2}, "the number of threads was 1 and is 2"),
        ({"test": striped(64, 3)}, "the test pictures or their labels have changed"),
        ({"test": None}, "the test pictures or their labels have changed"),
        ({"start": folder}, "the weights that it begins with have changed"),
    ]:
        with pytest.raises(sal.InputError, match=rf"^{where} holds another training run: {what}\. Undo the change, or train in a new folder\.$"):
            train(SMALL, "resnet9:width=4", data, folder, **{"test": test, "resume": True} | options)


def test_other_versions_are_told(tmp_path):
    options = ("standard:epochs=1,batch=8", "lenet", striped(8), tmp_path)
    train(*options)
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"versions": run["versions"] | {"torch": "1.0"}}))
    with pytest.warns(UserWarning, match=rf"^The run began with other versions \(torch 1\.0 then, {re.escape(torch.__version__)} now\): its weights may differ in the last digits\.$"):
        train(*options, resume=True)


def test_a_finished_run_is_judged_again_if_more_shall_be_attacked(tmp_path):
    """The old card came back without a word. The checkpoint is not needed for it: users delete it."""
    options = ("standard:epochs=1,batch=32", "lenet", striped(96), tmp_path / "net")
    first = train(*options, test=striped(24, 1), attacked=4, note="A note.")
    (tmp_path / "net" / "checkpoint.safetensors").unlink()
    asked = []
    assert train(*options, test=striped(24, 1), attacked=4, resume=True, report=lambda *told: asked.append(told)) == first
    assert not asked
    second = train(*options, test=striped(24, 1), attacked=16, resume=True)
    whole = train(*options[:3], tmp_path / "whole", test=striped(24, 1), attacked=16)
    assert second["pgd"] == whole["pgd"]
    assert second | {"pgd": first["pgd"]} == first
    assert "16 images" in (tmp_path / "net" / "card.md").read_text()
    assert train(*options, test=striped(24, 1), attacked=0, resume=True)["pgd"] is None


def test_a_number_of_threads_is_positive(tmp_path):
    for threads in (0, -1):
        with pytest.raises(sal.InputError, match=r"^threads must be at least 1\.$"):
            train(SMALL, "lenet", striped(8), tmp_path, threads=threads)


def test_the_network_is_in_training_mode_in_every_step_and_judged_in_full_precision(tmp_path, monkeypatch):
    modes, judging = [], []
    loss, glance = Standard.loss, loop._glance

    def noted(self, net, images, labels, **where):
        modes.append(all(module.training for module in net.modules()))
        return loss(self, net, images, labels, **where)

    monkeypatch.setattr(Standard, "loss", noted)
    monkeypatch.setattr(loop, "GLANCE", 4)
    monkeypatch.setattr(loop, "_glance", lambda model, test: judging.append(test.labels.tolist()) or glance(model, test))
    monkeypatch.setattr(loop, "judged", lambda model, test, **options: judging.append(model.precision) or {"accuracy": None, "pgd": None, "weight_sigma": None})
    test = striped(16)
    order = test.labels.argsort(stable=True)
    train("standard:epochs=2,batch=8", "resnet9:width=4", striped(16), tmp_path, test=Pictures(test.images[order], test.labels[order], test.classes), precision="bfloat16")
    assert modes == [True] * 4
    assert judging == [[0, 1, 2, 3], [0, 1, 2, 3], "float32"]  # a few of all test pictures, not the first ones


def test_a_line_of_the_log_that_is_ahead_of_the_checkpoint_is_written_anew(tmp_path):
    """As if the run had been killed after the log of an epoch and before its checkpoint."""

    class StopError(Exception):
        pass

    def stop(what, done, total):
        if what == "training" and done == 3:
            raise StopError

    with pytest.raises(StopError):
        train("standard:epochs=2,batch=8", "lenet", striped(16), tmp_path, report=stop)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 2, "loss": 99.0, "test": None, "seconds": 0.0}) + "\n")
    card = train("standard:epochs=2,batch=8", "lenet", striped(16), tmp_path, resume=True)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["loss"] == card["loss"] < 99


@pytest.mark.parametrize("log", ['{"epoch": 1, "lo', "", None])
def test_a_damaged_log_ends_nothing(tmp_path, log):
    """The checkpoint does not need it, but --resume ended in a traceback."""
    train("standard:epochs=2,batch=8", "lenet", striped(16), tmp_path)
    (tmp_path / "card.json").unlink()
    whole = (tmp_path / "model.safetensors").read_bytes()
    if log is None:
        (tmp_path / "log.jsonl").unlink()
    else:
        (tmp_path / "log.jsonl").write_text(log)
    with pytest.warns(UserWarning, match=r"log\.jsonl lacks 2 of 2 epochs: the learning curves will lack them too\. The network does not\.$"):
        card = train("standard:epochs=2,batch=8", "lenet", striped(16), tmp_path, resume=True)
    assert card["loss"] is None
    assert (tmp_path / "model.safetensors").read_bytes() == whole


def test_a_single_step_trains(tmp_path):
    """The rate rises from 0, at which a run of one step left everything as it was."""
    train("standard:epochs=1,batch=64", "lenet", striped(16), tmp_path / "one")
    trained = load_file(tmp_path / "one" / "model.safetensors")
    with torch.random.fork_rng():
        other = train("standard:epochs=1,batch=64,rate=1e-9", "lenet", striped(16), tmp_path / "none")
    still = load_file(tmp_path / "none" / "model.safetensors")
    assert other["loss"] > 0
    assert max(float((trained[key] - still[key]).abs().max()) for key in still) > 1e-4


def test_an_unknown_precision_is_refused(tmp_path):
    """It trained in float32, and the card said otherwise."""
    with pytest.raises(sal.InputError, match=r"^Unknown precision 'float16': did you mean"):
        train(SMALL, "lenet", striped(8), tmp_path, precision="float16")
    assert not list(tmp_path.iterdir())


def test_a_card_of_a_later_version_is_refused(finished, tmp_path):
    folder, card = finished
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "card.json").write_text(json.dumps({"format": 2} | card))
    with pytest.raises(sal.InputError, match=r"card\.json has format 2, which this version cannot read: install a later salience\.$"):
        sal.load_model(f"trained:{tmp_path}")


def test_two_cannot_train_in_one_folder(tmp_path):
    with Folder(tmp_path).locked(), pytest.raises(sal.InputError, match=r"^Another process is training in .*: wait for it, or take another folder\.$"):
        train(SMALL, "lenet", striped(8), tmp_path)


def test_other_mistakes(tmp_path, finished):
    folder, _ = finished
    data = striped(16)
    rows = Pictures(data.images, torch.ones(16, 4, dtype=torch.int64), data.classes)
    for arguments, message in [
        (("cure", "lenet", data, tmp_path / "a"), "cure begins with a trained network: give its folder or its weights with --from."),
        (("multilabel", "lenet", data, tmp_path / "b"), "multilabel needs rows of 0 and 1: use another recipe."),
        (("standard", "lenet", rows, tmp_path / "c"), "standard needs one class a picture: use the recipe multilabel."),
        (
            ("standard", "lenet", Pictures(data.images, 0 * data.labels, ("only",)), tmp_path / "one"),
            "The training pictures are all of one class, so there is nothing to learn: give pictures of two classes at least.",
        ),
    ]:
        with pytest.raises(sal.InputError) as caught:
            train(*arguments)
        assert str(caught.value) == message
    with pytest.raises(sal.InputError, match=r"^The weights do not fit lenet:classes=4: give those of the same architecture and width\.$"):
        train("standard:epochs=1", "lenet", data, tmp_path / "d", start=folder)
    with pytest.raises(sal.InputError, match=r"^The loss is (nan|inf) in step \d+ of epoch \d: lower the rate of the recipe\.$"):
        train("standard:epochs=3,rate=1e30,momentum=0,drops=0", "lenet", data, tmp_path / "e")
    with pytest.raises(sal.InputError, match=r"^There is no trained network in .*: give a folder that 'salience train' wrote to its end, or finish it with --resume\.$"):
        sal.load_model(f"trained:{tmp_path / 'e'}")


def test_weights_that_are_not_the_cards_are_refused(finished, tmp_path):
    folder, _ = finished
    for name in ("card.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    changed = bytearray((folder / "model.safetensors").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(changed)
    with pytest.raises(sal.InputError, match=r"model\.safetensors is not the file that card\.json was written for: restore both\.$"):
        sal.load_model(f"trained:{tmp_path}")
    with pytest.raises(sal.InputError, match=r"model\.safetensors is not the file that card\.json was written for: restore both\.$"):
        train("standard:epochs=1", "resnet9:width=4", striped(8), tmp_path / "next", start=tmp_path)


def test_weights_beside_another_networks_card_take_nothing_from_it(finished, tmp_path):
    """They were given its mean and standard deviation."""
    folder, card = finished
    (tmp_path / "card.json").write_text(json.dumps(json.loads((folder / "card.json").read_text()) | {"mean": [0.9, 0.9, 0.9], "sha256": "another"}))
    (tmp_path / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    data = striped(8)
    made = train("standard:epochs=1", "resnet9:width=4", data, tmp_path / "next", start=tmp_path / "other.safetensors")
    assert tuple(made["mean"]) == data.mean_and_std()[0]
    (tmp_path / "other.json").write_text((folder / "card.json").read_text())
    assert train("standard:epochs=1", "resnet9:width=4", data, tmp_path / "third", start=tmp_path / "other.safetensors")["mean"] == card["mean"]


def test_it_begins_with_given_weights(finished, tmp_path):
    folder, card = finished
    made = train("standard:epochs=1,rate=1e-12", "resnet9:width=4", striped(32, 3), tmp_path, start=folder)
    assert (made["start"], made["mean"]) == (card["sha256"], card["mean"])
    first, second = tensors(folder), tensors(tmp_path)
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in first if key.endswith("weight"))
