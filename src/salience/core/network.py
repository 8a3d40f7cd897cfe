"""A network is left as it was: one call at a time works on it, in evaluation mode, and puts everything back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from salience.core.memory import kept_memory

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_locks_lock = threading.Lock()


def lock_of(network: nn.Module) -> "threading.RLock":
    """The lock of a network: a call changes its modes, perhaps its weights, and puts them back, so calls from several threads take turns."""
    with _locks_lock:
        return _locks.setdefault(network, threading.RLock())


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode inside, and in its own mode again afterwards."""
    training = [module for module in network.modules() if module.training]
    try:
        for module in training:
            module.training = False
        if training:
            forget(network)
        yield
    finally:
        for module in training:
            module.training = True


def forget(network: nn.Module) -> None:
    """Have modules drop what they keep of their weights in evaluation mode, as LeViT's attention keeps its biases: those with a ``train`` of their own are told that the mode changes. All modes stay."""
    for module in network.modules():
        if type(module).train is not nn.Module.train and not isinstance(module, torch.jit.ScriptModule):
            modes = [(each, each.training) for each in module.modules()]
            module.train(False)
            for each, mode in modes:
                each.training = mode


_kept: WeakSet[nn.Module] = WeakSet()


@contextmanager
def same_buffers(network: nn.Module) -> Iterator[None]:
    """Afterwards the network's buffers are as they were before: some change in evaluation mode too, as the observers of quantisation do. Its lock must be held.

    So are weights that hooks compute before each pass, as pruning does: otherwise they would stay those of the last pass, with its noise.
    """
    if network in _kept:  # the outermost call puts them back
        yield
        return
    before = [(module, name, buffer, buffer.clone()) for module in network.modules() for name, buffer in module._buffers.items() if buffer is not None and buffer.layout == torch.strided]
    made = [(module, name, value) for module in network.modules() if module._forward_pre_hooks for name, value in vars(module).items() if isinstance(value, Tensor)]
    _kept.add(network)
    try:
        yield
    finally:
        _kept.discard(network)
        for module, name, value in made:
            vars(module)[name] = value
        for module, name, buffer, value in before:
            if not isinstance(module, torch.jit.ScriptModule):
                module._buffers[name] = buffer
            if not torch.equal(buffer, value):
                with torch.no_grad():
                    (buffer if buffer.shape == value.shape else buffer.resize_(value.shape)).copy_(value)


@contextmanager
def at_work(network: nn.Module) -> Iterator[None]:
    """Other threads wait for the network, its modules are in evaluation mode, freed memory is kept; afterwards modes and buffers are as they were."""
    with lock_of(network), evaluating(network), same_buffers(network), kept_memory:
        yield
