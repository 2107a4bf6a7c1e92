from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ava.errors import InputError
from ava.reporting.run_directory import RunDirectory

HOLDER = """
import sys
from pathlib import Path
from ava.reporting.run_directory import RunDirectory
directory = RunDirectory.open(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path):
    """A run directory that nobody holds."""
    with RunDirectory.create(tmp_path / "run") as directory:
        (directory.root / "config.yaml").write_text("seed: 0\n")
    return directory.root


def test_create_makes_parents_and_locks(tmp_path):
    with RunDirectory.create(tmp_path / "a" / "b" / "run") as directory:
        assert directory.root == tmp_path / "a" / "b" / "run"
        assert str(os.getpid()) in (directory.root / ".lock").read_text()


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunDirectory.create(Path("run")) as directory:
        assert directory.root == tmp_path / "run"


def test_a_taken_name_is_refused_with_the_remedy(run):
    with pytest.raises(InputError, match=r"already holds a run.*resume=.*another run_dir"):
        RunDirectory.create(run)


def test_an_existing_empty_directory_is_taken(tmp_path):
    RunDirectory.create(tmp_path).release()
    RunDirectory.create(tmp_path).release()


def test_a_directory_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="other files"):
        RunDirectory.create(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_second_opening_in_the_same_process_names_the_holder(run):
    with RunDirectory.open(run), pytest.raises(InputError) as caught:
        RunDirectory.open(run)
    assert f"process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
    RunDirectory.open(run).release()


def test_another_process_holds_it_until_it_is_killed(run):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"in use by process {holder.pid} on "):
            RunDirectory.open(run)
        with pytest.raises(InputError):
            RunDirectory.create(run)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert str(holder.pid) in (run / ".lock").read_text()
        RunDirectory.open(run).release()


def test_a_forked_child_does_not_keep_the_lock_when_its_parent_is_killed(run):
    """A data loader's worker may outlive the process that trains."""
    program = HOLDER.replace('print("held", flush=True)', "import os; print(os.fork(), flush=True)")
    holder = subprocess.Popen([sys.executable, "-c", program, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert len({holder.stdout.readline(), holder.stdout.readline()}) == 2, "parent and child are both there"
        holder.send_signal(signal.SIGKILL)
        os.waitpid(holder.pid, 0)
        RunDirectory.open(run).release()


def test_a_childs_fork_does_not_release_the_lock(run):
    with RunDirectory.open(run):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(InputError, match="in use"):
            RunDirectory.open(run)


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"pid": 1}'])
def test_an_unreadable_lock_file_still_locks(run, content):
    with RunDirectory.open(run):
        (run / ".lock").write_text(content)
        with pytest.raises(InputError, match="in use by another process"):
            RunDirectory.open(run)


def test_release_twice(run):
    directory = RunDirectory.open(run)
    directory.release()
    directory.release()


@pytest.mark.parametrize("make", [RunDirectory.create, RunDirectory.unique])
@pytest.mark.parametrize("where", ["file/run", "file/deep/er/run", "new/file-is-parent/" + "x" * 300, "a\0b"])
def test_where_no_directory_can_be_nothing_stays(tmp_path, make, where):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be made or written"):
        make(tmp_path / where)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(InputError):
        RunDirectory.create(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "x"


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a file system that nobody may write to")
def test_a_place_that_cannot_be_written():
    with pytest.raises(InputError, match="cannot be made or written"):
        RunDirectory.create(Path("/proc/ava/run"))


def test_open_wants_a_run(tmp_path):
    (tmp_path / "file").write_text("x")
    for name, said in [("absent", "does not exist"), ("file", "not a directory"), (".", "holds no run")]:
        with pytest.raises(InputError, match=said):
            RunDirectory.open(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_unique_counts_up(tmp_path):
    held = [RunDirectory.unique(tmp_path / "out" / "run") for _ in range(3)]
    assert [d.root.name for d in held] == ["run", "run-1", "run-2"]
    for directory in held:
        directory.release()
