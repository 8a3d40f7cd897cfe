"""Mean average precision as one number a picture: scikit-learn's mean, and its jackknife values."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from salience.training.average_precision import average_precisions


class TestAveragePrecision:
    @pytest.fixture(params=[0, 1, 2])
    def case(self, request):
        """Scores with ties, and several labels a picture, some without any."""
        source = np.random.default_rng(request.param)
        positives = source.random((17, 6)) < 0.3
        positives[source.permutation(17)[:6], range(6)] = True
        return source.integers(0, 7, (17, 6)) / 4.0 + positives, positives

    def test_scikit_learn(self, case):
        scores, positives = case
        assert average_precisions(scores, positives).mean() == pytest.approx(average_precision_score(positives, scores, average="macro"), abs=1e-12)

    def test_jackknife_values_are_those_of_leaving_pictures_out(self, case):
        scores, positives = case
        n, whole = len(scores), average_precision_score(positives, scores, average="macro")
        left = []
        for place in range(n):
            rest = np.arange(n) != place
            counted = positives[rest].any(0)
            left.append(average_precision_score(positives[rest][:, counted], scores[rest][:, counted], average="macro"))
        values = n * whole - (n - 1) * np.array(left)
        assert np.allclose(average_precisions(scores, positives), values - values.mean() + whole)

    def test_order_decides(self):
        positives = np.array([[True], [True], [False], [False]])
        assert average_precisions(np.array([[3.0], [2.0], [1.0], [0.0]]), positives).mean() == pytest.approx(1)
        assert average_precisions(np.array([[0.0], [1.0], [2.0], [3.0]]), positives).mean() == pytest.approx((1 / 3 + 2 / 4) / 2)
        assert average_precisions(np.zeros((4, 1)), positives).mean() == pytest.approx(0.5)

    def test_a_class_with_one_picture(self):
        assert average_precisions(np.array([[1.0], [0.0]]), np.array([[True], [False]])).mean() == pytest.approx(1)

    def test_one_picture(self):
        assert average_precisions(np.array([[1.0, 0.0]]), np.array([[True, True]])).tolist() == [1.0]
