"""Nothing short of a burnt disk loses or changes a row: workers, signals, a full disk, a cluster whose nodes die."""

import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from small_study import STUDY, same

import salience as sal
from salience.studies.engines import local
from salience.studies.plan import plan
from salience.studies.run import run_study
from salience.studies.store import Store
from salience.studies.study import Study, read_study
from salience.studies.work import Result

SUPPORT = Path(__file__).parent.parent / "support"


def process(*arguments: str, **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"} | options.pop("env", {})
    return subprocess.Popen([sys.executable, "-m", "salience", "study", "run", "study.yaml", *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_workers_give_the_same_rows(whole, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    study = read_study("study.yaml")
    two = run_study(study, "two", workers=2)
    assert two.manifest["threads"] == 1
    assert same(two, whole)


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_model_that_is_another_in_each_process_is_refused(folder, monkeypatch, engine):
    """Every worker explained another network, and nothing said so."""
    if engine == "ray":
        pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    study = read_study("study.yaml").model_copy(update={"models": ["python:tiny_models:by_process"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        with pytest.raises(sal.InputError, match=r"^python:tiny_models:by_process was loaded once more and has other weights than the study began with: .* for example from one file\.$"):
            run_study(study, "out", workers=2, threads=1, engine=engine)
    assert Store("out").rows() == []


def test_models_that_cannot_be_loaded_in_a_worker_are_no_matter_of_the_pictures(folder, monkeypatch):
    """Every row was failed for it, and so done for good: --resume had nothing left to do."""
    study = read_study("study.yaml")
    tasks = [(unit, False) for unit in plan(study).units]
    monkeypatch.setattr("salience.studies.work.load_model", lambda *_, **__: (_ for _ in ()).throw(sal.InputError("It is not here.")))
    with pytest.raises(sal.InputError, match=r"^It is not here\.$"):
        list(local(study, tasks, 1, 1))


def test_results_are_not_kept_until_the_end(folder, monkeypatch):
    """The process that started the workers held them all, maps too: a study of many pictures filled the memory."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    methods = [f"smoothgrad:samples={samples}" for samples in range(2, 12)]
    study = Study.model_validate({"name": "many", "models": ["python:tiny_models:net"], "data": {"folder": "pictures"}, "methods": methods, "metrics": ["gini"]})
    results = local(study, [(unit, False) for unit in plan(study).units], 2, 1)
    assert len([next(results) for _ in range(39)]) == 39
    gc.collect()
    assert sum(type(each) is Result for each in gc.get_objects()) < 20
    assert len(list(results)) == 1


def test_killed_and_resumed(folder, whole):
    """kill -9 at three moments, then to the end: the rows of a run that was left alone, nothing computed twice."""
    parts = folder / "out" / "results"
    for number in (1, 3, 5):
        running = process("--out", "out", *(["--resume"] if (folder / "out" / "manifest.json").exists() else []))
        wait_for(lambda number=number: len(list(parts.glob("*.parquet"))) >= number)
        running.send_signal(signal.SIGKILL)
        running.communicate()
    before = {file: file.stat().st_mtime_ns for file in parts.glob("*.parquet")}
    ended = process("--out", "out", "--resume")
    out, err = ended.communicate(timeout=120)
    assert (ended.returncode, err) == (0, "")
    assert "198 rows, 6 undefined, 18 failed are in out" in out
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    assert same(Store("out"), whole)
    assert not list((folder / "out").rglob("*.part"))


def test_one_run_at_a_time(folder):
    (folder / "study.yaml").write_text(STUDY.replace("tiny_models:net", "tiny_models:slow").replace("samples=3", "samples=9999"))
    first = process("--out", "out", env={"BEGUN": str(folder / "begun")})
    wait_for(lambda: (folder / "begun").exists())
    second = process("--out", "out", "--resume", env={"BEGUN": str(folder / "begun")})
    _, err = second.communicate(timeout=60)
    assert (second.returncode, err) == (2, "Error: Another process is running a study in out: wait for it, or take another folder.\n")
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert (first.returncode, err) == (130, "Interrupted: every file that was written is whole.\n")


def test_nobody_waits_for_workers_that_are_interrupted(folder):
    """Ctrl-C, which reaches every process, ended the command only when all units under way were done, here in an hour or so."""
    (folder / "study.yaml").write_text(STUDY.replace("tiny_models:net", "tiny_models:slow").replace("samples=3", "samples=9999"))
    running = process("--out", "out", "--workers", "2", "--threads", "1", env={"BEGUN": str(folder / "begun")}, start_new_session=True)
    wait_for(lambda: (folder / "begun").exists())
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "Interrupted: every file that was written is whole.\n")


def test_sigterm_ends_a_study_as_ctrl_c_does(folder):
    """Batch systems send it when the time is over. Python's warning of leaked semaphores was all that was said."""
    (folder / "study.yaml").write_text(STUDY.replace("tiny_models:net", "tiny_models:slow").replace("samples=3", "samples=9999"))
    running = process("--out", "out", "--workers", "2", "--threads", "1", env={"BEGUN": str(folder / "begun")})
    wait_for(lambda: (folder / "begun").exists())
    running.terminate()
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (143, "Terminated: every file that was written is whole.\n")


def test_workers_that_are_interrupted_while_they_start_say_nothing(folder):
    """Ctrl-C in the first seconds printed the trace of where each was in its imports."""
    running = process("--out", "out", "--workers", "2", "--threads", "1", start_new_session=True)
    wait_for(lambda: (folder / "out" / "manifest.json").exists())
    time.sleep(0.3)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "Interrupted: every file that was written is whole.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
def test_a_full_disk(folder, whole):
    """A file may not grow: as if the disk were full. What was asked for is said, no half file is left, and it goes on from there."""
    import resource

    full = process("--out", "out", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)))
    _, err = full.communicate(timeout=60)
    assert full.returncode == 2
    assert err.startswith("Error: Cannot write out")
    assert err.count("\n") == 1
    assert not list((folder / "out").rglob("*.part"))
    ended = process("--out", "out", "--resume")
    assert ended.communicate(timeout=60)[1] == ""
    assert same(Store("out"), whole)


def test_a_cluster_that_runs_on_this_machine_is_not_taken_unasked(whole, monkeypatch):
    """Ray connected to it, and refused the number of processors."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    study = read_study("study.yaml")
    code = "from ray.cluster_utils import Cluster; made = Cluster(True, head_node_args={'num_cpus': 1, 'include_dashboard': False}); print('ready', flush=True); input(); made.shutdown()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert "ready\n" in iter(other.stdout.readline, "")
        monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own
            store = run_study(study, "out", engine="ray")
    finally:
        other.communicate("\n", timeout=60)
    assert same(store, whole)


def test_ray_nodes_that_die(whole, monkeypatch):
    """Two Ray nodes on this machine; the one at work is killed after the first rows: the table is the same."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    study = read_study("study.yaml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
            monkeypatch.setenv("RAY_ADDRESS", cluster.address)
            killed = []

            def report(what, done, total):
                if what == "computing" and done == 1 and not killed:
                    killed.append(cluster.remove_node(nodes[0], allow_graceful=False))

            store = run_study(study, "out", engine="ray", report=report)
        finally:
            ray.shutdown()
            cluster.shutdown()
    assert killed
    assert same(store, whole)
