"""``salience train`` through the real command line, on made pictures; and ``salience list`` of what it takes."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_pictures import striped
from PIL import Image

import salience as sal
from salience import cli
from salience.training import card
from salience.training.architecture import list_architectures
from salience.training.recipe import Recipe, list_recipes

SMALL = ("--architecture", "lenet", "--epochs", "2", "--attacked", "4")


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(card, "tuned_weight_sigma", lambda model, images: 0.125)


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    """Run a command in a folder that holds cifar10.npz: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    parts = {}
    for split, n, seed in (("train", 96, 0), ("test", 24, 1)):
        made = striped(n, seed)
        parts |= {f"x_{split}": made.images.permute(0, 2, 3, 1).numpy(), f"y_{split}": made.labels.numpy()}
    np.savez(tmp_path / "cifar10.npz", **parts)

    def run(*arguments):
        code = cli.main([str(each) for each in arguments])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def refused(run, tmp_path):
    """The one line that a wrong command prints; it leaves no network behind."""

    def refused(*arguments):
        code, out, err = run("train", *arguments, "--out", "none")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert not (tmp_path / "none" / "card.json").exists()
        return err.removeprefix("Error: ").strip()

    return refused


def test_train_and_use(run, tmp_path):
    code, out, err = run("train", "standard:rate=0.01,batch=16", "--data", "cifar10:root=.", *SMALL, "--out", "net", "--note", "Made for a test.", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found == {key: value for key, value in json.loads((tmp_path / "net" / "card.json").read_text()).items() if key != "format"}
    assert (found["data"]["name"], found["test"]["name"]) == ("cifar10:root=.,split=train", "cifar10:root=.")
    assert (found["data"]["images"], found["test"]["images"], found["pgd"]["images"]) == (96, 24, 4)
    assert found["options"]["epochs"] == "2"
    assert found["classes"][0] == "airplane"
    assert "Made for a test." in (tmp_path / "net" / "card.md").read_text()
    Image.fromarray(striped(1).images[0].permute(1, 2, 0).numpy()).save("digit.png")
    code, out, _ = run("explain", "digit.png", "--model", "trained:net", "--method", "gradient", "--json")
    assert code == 0
    assert json.loads(out)["label"] == "airplane"


def test_the_table_and_resume(run):
    arguments = ("train", "standard:batch=16", "--data", "cifar10:root=.", *SMALL, "--out", "net")
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert "lenet" in out
    assert "Use it as --model trained:net; net/card.md tells the rest." in out
    code, _, err = run(*arguments)
    assert (code, err) == (2, "Error: net holds a training run already: continue it with --resume, or choose another folder with --out.\n")
    assert run(*arguments, "--resume")[:2] == (0, out)
    code, _, err = run(*arguments, "--seed", "3", "--resume")
    assert (code, err) == (2, "Error: net holds another training run: the seed was 0 and is 3. Undo the change, or train in a new folder.\n")
    assert run("train", "cure:batch=32", "--data", "cifar10:root=.", *SMALL, "--from", "net", "--out", "cure")[0] == 0


def test_full_sets_what_is_not_spelled_out(run):
    code, out, _ = run("train", "standard:batch=48,degrees=3", "--data", "cifar10:root=.,limit=48", "--architecture", "lenet", "--full", "--epochs", "1", "--attacked", "0", "--out", "net", "--json")
    assert code == 0
    options = json.loads(out)["options"]
    assert [options[key] for key in ("batch", "degrees", "epochs", "rate", "drops", "shift")] == ["48", "3.0", "1", "0.001", "0", "2"]


def test_full_pictures_of_several_labels_have_the_papers_size(run):
    """They had 32 pixels a side, and the network began from nothing."""
    assert Recipe.from_value("multilabel").full_network == "torchvision:resnet18:pretrained=true"
    command = ("train", "multilabel:batch=4", "--data", "cifar10:root=.,limit=4", "--architecture", "torchvision:resnet18", "--epochs", "1", "--attacked", "0", "--json")
    assert json.loads(run(*command, "--full", "--out", "full")[1])["size"] == [224, 224]
    assert json.loads(run(*command, "--out", "plain")[1])["size"] == [32, 32]


def test_full_keeps_what_is_spelled_out_as_it_would_have_been_anyway(run):
    """The recipe's own number of epochs, written down, is not the papers'."""
    code, out, _ = run("train", "standard:rate=0.002,epochs=6", "--data", "cifar10:root=.,limit=8", "--architecture", "lenet", "--full", "--attacked", "0", "--out", "net", "--json")
    assert code == 0
    assert [json.loads(out)["options"][key] for key in ("rate", "epochs")] == ["0.002", "6"]


def test_a_split_that_is_given_is_taken(run):
    code, out, _ = run("train", "standard", "--data", "cifar10:root=.,split=test,limit=8", "--test", "cifar10:root=.,split=train,limit=8", *SMALL, "--out", "net", "--json")
    assert code == 0
    assert (json.loads(out)["data"]["name"], json.loads(out)["test"]["name"]) == ("cifar10:limit=8,root=.", "cifar10:limit=8,root=.,split=train")


def test_pictures_that_the_network_cannot_take_leave_nothing_behind(run, tmp_path):
    arguments = ("train", "standard", "--data", "cifar10:root=.,limit=8", *SMALL, "--out", "net")
    code, _, err = run(*arguments, "--size", "16")
    assert (code, err) == (2, "Error: lenet cannot take pictures of 16 x 16: give another --size, such as 32 or 224, or another architecture.\n")
    assert not (tmp_path / "net" / "run.json").exists()
    assert run(*arguments)[0] == 0


def test_a_network_that_asserts_the_size_of_its_pictures(run):
    code, _, err = run("train", "standard", "--architecture", "torchvision:vit_b_32", "--data", "cifar10:root=.,limit=8", "--out", "net")
    assert (code, err) == (2, "Error: torchvision:vit_b_32 cannot take pictures of 32 x 32: give another --size, such as 32 or 224, or another architecture.\n")


def test_a_device_that_is_not_there(run):
    code, _, err = run("train", "standard", "--data", "cifar10:root=.,limit=8", *SMALL, "--out", "net", "--device", "nonsense")
    assert code == 2
    assert err.startswith("Error: The device 'nonsense' cannot be used here (")


def test_data_sets_are_joined(run):
    code, out, _ = run("train", "standard", "--data", "cifar10:root=.,limit=40", "--data", "cifar10:root=.,limit=24,shuffle=1", *SMALL, "--out", "net", "--json")
    assert code == 0
    assert json.loads(out)["data"]["images"] == 64
    assert json.loads(out)["data"]["name"] == "cifar10:limit=40,root=.,split=train + cifar10:limit=24,shuffle=1,root=.,split=train"


def test_folders_whose_files_share_their_names(run, tmp_path):
    """train/a/0.png and test/a/0.png: the commonest layout was refused as if the pictures were the same. And a class may lack test pictures."""
    draw = np.random.default_rng(0)
    for split, classes in (("train", (0, 1, 2)), ("test", (0, 1, 1))):
        (tmp_path / split).mkdir()
        for number in range(3):
            Image.fromarray(draw.integers(0, 255, (24, 24, 3), np.uint8)).save(tmp_path / split / f"{number}.png")
        (tmp_path / split / "labels.csv").write_text("file,class_index\n" + "".join(f"{number}.png,{label}\n" for number, label in enumerate(classes)))
    folders = [f"folder:root={split},labels=labels.csv" for split in ("train", "test")]
    command = ("train", "standard:epochs=1", "--architecture", "lenet:width=4", "--attacked", "0", "--json")
    code, out, err = run(*command, "--data", folders[0], "--test", folders[1], "--out", "net")
    assert (code, json.loads(out)["classes"]) == (0, ["class 0", "class 1", "class 2"]), err
    (tmp_path / "test" / "2.png").write_bytes((tmp_path / "train" / "2.png").read_bytes())
    code, _, err = run(*command, "--data", folders[0], "--test", folders[1], "--out", "again")
    assert (code, "1 pictures, 2.png first, are in the training and in the test pictures" in err) == (2, True)


def test_several_classes_a_picture(run, tmp_path):
    """PASCAL VOC's layout, pictures of several sizes."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    for split, count in (("train", 12), ("val", 6)):
        names = [f"{split}{number}" for number in range(count)]
        (tmp_path / "voc" / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for number, name in enumerate(names):
            Image.new("RGB", (40 + number, 50), (20 * number, count, 0)).save(tmp_path / "voc" / "JPEGImages" / f"{name}.jpg")
            there = ["cat", "dog"][: 1 + number % 2]
            boxes = "".join(f"<object><name>{each}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>" for each in there)
            (tmp_path / "voc" / "Annotations" / f"{name}.xml").write_text(f"<a><size><height>50</height><width>{40 + number}</width></size>{boxes}</a>")
    code, out, err = run("train", "multilabel:batch=4", "--data", "voc:root=voc", "--architecture", "resnet8:width=4", "--epochs", "1", "--size", "24", "--out", "net", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["accuracy"]["measure"], found["pgd"], found["size"], len(found["classes"])) == ("mean average precision", None, [24, 24], 20)
    assert (found["data"]["images"], found["test"]["images"]) == (12, 6)
    assert sal.load_model("trained:net").size == (24, 24)


def test_mistakes_are_one_line(refused, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    (tmp_path / "labels.csv").write_text("file,class_index\none.png,1\n")
    data = ("--data", "cifar10:root=.")
    assert refused("standart", *data).startswith("Unknown recipe 'standart': did you mean standard")
    assert refused("standard", *data, "--architecture", "resnet10").startswith("Unknown architecture 'resnet10': did you mean")
    assert refused("standard", "--data", "cifar:root=.").startswith("Unknown dataset 'cifar': did you mean")
    assert refused("standard", *data, "--epochs", "0") == "standard: epochs must be at least 1, not 0."
    assert refused("standard", *data, "--attacked", "-1") == "--size must be at least 1 and --attacked at least 0."
    assert refused("standard", *data, "--precision", "half").startswith("Unknown precision 'half'")
    assert refused("cure", *data, *SMALL) == "cure begins with a trained network: give its folder or its weights with --from."
    assert refused("cure", *data, *SMALL, "--from", "nowhere") == "nowhere cannot be read (No such file or directory): check the path."
    assert refused("multilabel", *data, *SMALL, "--test", "cifar10:root=.,split=train").startswith("96 pictures, train-00000 first, are in the training and in the test pictures")
    assert refused("standard", "--data", "folder:root=.", *SMALL) == "The picture one.png has 0 classes, and training needs one: give labels, or use the recipe multilabel."
    assert refused("standard", "--data", "folder:root=.,labels=labels.csv", *SMALL, "--test", "cifar10:root=.").startswith("The test pictures differ from the training pictures in size or classes")


def test_lists(run):
    for kind, names in (("architectures", list_architectures()), ("recipes", list_recipes())):
        listed = [json.loads(line) for line in run("list", kind, "--json")[1].splitlines()]
        assert [each["name"] for each in listed] == [name.replace("*", "NAME") for name in names]
    assert "epsilon" in run("list", "recipes", "adversarial")[1]
    assert "resnet9" in run("list", "architectures")[1]
    assert set(sal.list_models()) >= {"trained:FOLDER", *(path.stem for path in (Path(sal.__file__).parent / "zoo" / "weights").glob("*.safetensors"))}
