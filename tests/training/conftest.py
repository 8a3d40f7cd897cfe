"""Cards are made without the search for a noise level: the networks that ship have real ones."""

import pytest

from salience.training import card


@pytest.fixture(scope="session", autouse=True)
def _few():
    patch = pytest.MonkeyPatch()
    patch.setattr(card, "tuned_weight_sigma", lambda model, images: 0.125)
    yield
    patch.undo()
