"""Freed memory is kept inside a call, and only there."""

import json
import platform
import subprocess
import sys
import threading

import pytest
import torch

import salience as sal
from salience.core import memory

FREE_THRESHOLDS = platform.libc_ver()[0] == "glibc" and tuple(map(int, platform.libc_ver()[1].split("."))) >= (2, 35)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def kept(calls):
    return memory.KeptMemory(Library(lambda name, value: calls.append((name, value)) or 1))


class Library:
    """A C library."""

    def __init__(self, mallopt):
        self.mallopt = mallopt


def test_both_thresholds_are_raised_and_put_back(kept, calls):
    with kept:
        assert calls == list(memory.KEPT.items())
        calls.clear()
    assert calls == list(memory.USUAL.items())


def test_only_the_outermost_counts(kept, calls):
    with kept:
        calls.clear()
        with kept, kept:
            pass
        assert calls == []
    assert calls == list(memory.USUAL.items())


def test_threads_share_it(kept, calls):
    started, end = threading.Event(), threading.Event()

    def work():
        with kept:
            started.set()
            end.wait()

    thread = threading.Thread(target=work)
    with kept:
        thread.start()
        started.wait()
    assert dict(calls) == memory.KEPT
    end.set()
    thread.join()
    assert dict(calls) == memory.USUAL


def test_errors_put_it_back(kept, calls):
    with pytest.raises(KeyError, match="inside"), kept:
        raise KeyError("inside")
    assert dict(calls) == memory.USUAL


def test_a_threshold_that_is_refused_is_the_usual_one(calls):
    """As before glibc 2.35."""
    with memory.KeptMemory(Library(lambda name, value: calls.append((name, value)) or int(value <= 2**25 or name == memory.TRIM))):
        assert calls == [(memory.TRIM, memory.KEPT[memory.TRIM]), (memory.MMAP, memory.KEPT[memory.MMAP]), (memory.MMAP, memory.USUAL[memory.MMAP])]


def test_a_new_process_is_not_inside(kept, calls):
    with kept:
        kept.forget()
        with kept:
            pass
        assert dict(calls) == memory.USUAL
        kept.inside = 1


def test_thresholds_of_the_user_are_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert memory._glibc() is None


def test_nothing_happens_without_glibc():
    with memory.KeptMemory(None):
        pass


def test_every_call_is_inside(conv, monkeypatch):
    """White box and black box, and afterwards nobody is."""
    seen = []

    def scores(x):
        seen.append(memory.kept_memory.inside)
        return x.mean((2, 3))

    before = memory.kept_memory.inside
    sal.BlackBox(scores).outputs(torch.rand(1, 3, 8, 8))
    handle = conv.module.register_forward_hook(lambda *_: seen.append(memory.kept_memory.inside))
    sal.explain("gradient", conv, torch.rand(1, 3, 8, 8))
    handle.remove()
    assert min(seen) > before
    assert memory.kept_memory.inside == before


@pytest.mark.skipif(not FREE_THRESHOLDS, reason="needs glibc 2.35, whose mallopt takes any threshold")
def test_blocks_are_not_fetched_anew():
    """Pages faulted in by a block of 64 MB that is allocated again and again, in a process of its own: all of them outside, none inside."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    outside, inside = json.loads(done.stdout)
    assert inside < outside / 10


FAULTS = """
import json, resource, numpy
from salience.core.memory import kept_memory

def faults():
    numpy.ones(2**23)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        numpy.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = faults()
with kept_memory:
    print(json.dumps([outside, faults()]))
"""
