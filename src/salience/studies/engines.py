"""Who does the work: this process, several on this machine, or a Ray cluster. All give the same rows."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import torch

from salience.core.errors import InputError
from salience.core.threads import with_threads
from salience.studies.study import Study
from salience.studies.work import Result, Unit, compute

Engine = Callable[[Study, Sequence[tuple[Unit, bool]], int, int], Iterator[Result]]
"""From a study, its units (and whether their maps are kept), workers and threads of each, to results in any order."""


def local(study: Study, tasks: Sequence[tuple[Unit, bool]], workers: int, threads: int) -> Iterator[Result]:
    """In this process, or in several of this machine.

    Raises:
        InputError: If a process dies, or what it says of its model.
    """
    if workers == 1:
        with with_threads(threads):
            for unit, keep in tasks:
                yield compute(study, unit, keep)
        return
    context = multiprocessing.get_context("spawn")
    other_end, line = context.Pipe(duplex=False)
    with other_end, line, ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(threads, other_end)) as pool:
        try:

            def start(unit: Unit, keep: bool) -> Future[Result]:
                with _deaf_children():
                    return pool.submit(compute, study, unit, keep)

            for done in _under_way(tasks, 4 * workers, start, partial(wait, return_when=FIRST_COMPLETED)):
                yield done.result()
        except BrokenProcessPool as error:
            raise InputError("A worker process died, perhaps because the memory is full: take fewer workers, and continue with --resume.") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            line.close()  # nobody waits for what is still being computed


def _under_way(tasks: Iterable[tuple[Unit, bool]], most: int, start: Callable[[Unit, bool], Any], await_some: Callable[[list[Any]], tuple[Iterable[Any], Iterable[Any]]]) -> Iterator[Any]:
    """Tasks that are done, in any order; only a few are started at a time, and none is kept, so that memory does not grow with their number."""
    todo, running = iter(tasks), list[Any]()
    while running := [*running, *(start(*task) for task in islice(todo, most - len(running)))]:
        done, rest = await_some(running)
        running = list(rest)
        yield from done


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started inside do not hear Ctrl-C, from their first instruction on: while they import they could not say it well."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(threads: int, line: Connection) -> None:
    """In a new process: its threads; and it ends when the line to the one that started it is closed, also because that was killed."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all, on Windows this one too; the one that started it says what follows

    def watch() -> None:
        line.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def on_ray(study: Study, tasks: Sequence[tuple[Unit, bool]], workers: int, threads: int) -> Iterator[Result]:
    """On a Ray cluster: the one that ``RAY_ADDRESS`` names, or one started on this machine.

    A task whose worker or node dies is done again elsewhere. Rows come back here, so nodes need no common disk,
    but the pictures and models must be found at the same paths on each.

    Raises:
        InputError: If Ray is not installed, or what a worker says of its model.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("The engine ray needs Ray: pip install 'salience[ray]'.") from error
    started = not ray.is_initialized()
    if started:
        address = os.environ.get("RAY_ADDRESS", "local")  # without one Ray would take whatever cluster it finds on this machine
        ray.init(address=address, num_cpus=workers * threads if address == "local" else None, logging_level=logging.ERROR, include_dashboard=False)
    try:
        work = ray.remote(num_cpus=threads, max_retries=-1)(_remote)
        described = study.model_dump_json()
        for done in _under_way(tasks, 4 * workers, lambda unit, keep: work.remote(described, unit, keep, threads), ray.wait):
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:  # it has the worker's trace in its message
                raise error.cause if isinstance(error.cause, InputError) else error from None
            yield result
    finally:
        if started:
            ray.shutdown()


def _remote(described: str, unit: Unit, keep: bool, threads: int) -> Result:
    torch.set_num_threads(threads)
    return compute(Study.model_validate_json(described), unit, keep)


ENGINES: dict[str, Engine] = {"local": local, "ray": on_ray}
