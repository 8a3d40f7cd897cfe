"""How often a network is right: accuracy and mean average precision as one number a picture."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

import salience as sal
from salience.studies.truth import Truth


def items(*labels, groups=()):
    return [sal.Item(f"picture {place}", np.zeros((2, 2, 3), np.uint8), each, groups=groups) for place, each in enumerate(labels)]


class TestTruth:
    def test_labels_of_the_data_set(self):
        outputs = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 3, 1], [float("nan"), 0, 0]])
        truth = Truth.of(items((0,), (1,), (1,), (0,)), outputs.nan_to_num())
        assert (truth.labels, truth.measure) == ("data set", "accuracy")
        assert truth.values(outputs).tolist() == [1, 0, 1, 0]
        assert truth.chance.tolist() == pytest.approx([1 / 3] * 4)

    def test_clean_predictions(self):
        outputs = torch.tensor([[2.0, 1, 0], [0, 1, 2]])
        truth = Truth.of(items((), ()), outputs)
        assert (truth.labels, truth.values(outputs).tolist(), truth.values(outputs.flip(1)).tolist()) == ("clean predictions", [1, 1], [0, 0])

    def test_any_class_of_one_object_is_right(self):
        outputs = torch.tensor([[2.0, 1, 0], [0, 1, 2]])
        truth = Truth.of(items((0, 1), (1, 2), groups=((0, 1),)), outputs)
        assert truth.measure == "accuracy"
        assert truth.values(torch.tensor([[0.0, 1, 0], [1, 0, 0]])).tolist() == [1, 0]
        assert truth.chance.tolist() == pytest.approx([2 / 3] * 2)

    def test_several_labels(self):
        """Classes without a picture do not count; a row that is not finite comes last."""
        source = torch.Generator().manual_seed(0)
        labels = [(0, 1), (1,), (3,), (0, 3), ()]
        positives = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]], bool)
        outputs = torch.rand(5, 4, generator=source)
        clean = outputs.clone()
        clean[:, [0, 1, 3]] += torch.from_numpy(positives).float()
        truth = Truth.of(items(*labels), clean)
        assert truth.measure == "mean average precision"
        assert truth.chance.mean() == pytest.approx(positives.mean())
        assert truth.values(clean).mean() == pytest.approx(1)
        assert truth.values(outputs).mean() == pytest.approx(average_precision_score(positives, outputs[:, [0, 1, 3]].numpy(), average="macro"))
        broken = clean.clone()
        broken[0] = float("nan")
        scores = clean[:, [0, 1, 3]].numpy()
        scores[0] = -99
        assert truth.values(broken).mean() == pytest.approx(average_precision_score(positives, scores, average="macro"))

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (((0,), (7,)), r"^picture 1 has the label 7, but the model has classes 0 to 2: give data with the model's own classes, or a folder without labels\.$"),
            (((0,), ()), r"^picture 1 has no label, but other pictures have one: label all of them, or none\.$"),
            (((1,), (0,)), r"^Without noise the model's accuracy on these labels is 0\.000, no better than guessing: give data with the model's own classes, or a folder without labels\.$"),
        ],
    )
    def test_labels_that_do_not_fit(self, labels, message):
        with pytest.raises(sal.InputError, match=message):
            Truth.of(items(*labels), torch.tensor([[2.0, 1, 0], [0, 1, 2]]))
