"""Cards are made without the search for a noise level, and from few draws: the networks that ship have real ones."""

import pytest

from salience.training import card


@pytest.fixture(scope="session", autouse=True)
def _few():
    patch = pytest.MonkeyPatch()
    patch.setattr(card, "tuned_weight_sigma", lambda model, images: 0.125)
    patch.setattr(card, "GROUPS", 20)
    yield
    patch.undo()
