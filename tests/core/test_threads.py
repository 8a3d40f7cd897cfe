"""Threads: as many as asked for, as many as before afterwards, and torch's kernels kept where nothing changes."""

import pytest
import torch

from salience.core.threads import with_threads


def test_as_many_inside_and_as_before_afterwards_also_after_an_exception():
    before = torch.get_num_threads()
    with with_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), with_threads(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_the_same_number_is_not_set_again(monkeypatch):
    """A short run of training took a tenth longer: torch makes its kernels anew once the number is set."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: pytest.fail("the number was set"))
    with with_threads(torch.get_num_threads()):
        pass
