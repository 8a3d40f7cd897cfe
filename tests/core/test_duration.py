"""Times for people."""

import pytest

from salience.core.duration import duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 seconds"), (0.01234, "0.0123 seconds"), (59.6, "59.6 seconds"), (99.96, "100 seconds"), (192, "3.2 minutes"), (5970, "99.5 minutes"), (7200, "2.0 hours")]
)
def test_the_unit_suits_the_time(seconds, text):
    assert duration(seconds) == text
