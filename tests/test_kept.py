import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from nibblecore.sim import kept as module
from nibblecore.sim.kept import CacheError, cache_folder, cached, kept


def test_made_once_and_whole(tmp_path):
    """Eight at a time ask for the same folder: one makes it, and none sees it before it is whole."""
    made, seen = [], []

    def make(path):
        made.append(path)
        (path.parent / "object").write_text("thrown away")
        (path / "first").write_text("1")
        time.sleep(0.2)
        (path / "second").write_text("2")

    def ask():
        seen.append(sorted(file.name for file in kept(tmp_path / "new" / "folder", make).iterdir()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert seen == [["first", "second"]] * 8
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [".folder.lock", "folder"]


def test_nothing_stays_of_a_failure(tmp_path):
    def fail(path):
        (path / "first").write_text("1")
        raise RuntimeError("compiler")

    with pytest.raises(RuntimeError, match="compiler"):
        kept(tmp_path / "folder", fail)
    assert [file.name for file in tmp_path.iterdir()] == [".folder.lock"]
    assert kept(tmp_path / "folder", lambda path: (path / "second").write_text("2")) == tmp_path / "folder"
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["second"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout in the place of this one, and a user's home; who runs the tests may be allowed to write everywhere."""
    for name in ("NIBBLECORE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text("")
    monkeypatch.setattr(module, "_ROOT", root)
    return root


def protect(monkeypatch, *folders):
    monkeypatch.setattr(module.os, "access", lambda path, mode: Path(path) not in folders)


def test_the_cache_is_where_it_may_be(checkout, tmp_path, monkeypatch):
    assert cache_folder() == checkout / "build"
    with monkeypatch.context() as patch:
        protect(patch, checkout)
        assert cache_folder() == tmp_path / "home" / ".cache" / "nibblecore"
        (checkout / "build").mkdir()
        assert cache_folder() == checkout / "build"
        protect(patch, checkout / "build")
        assert cache_folder() == tmp_path / "home" / ".cache" / "nibblecore"
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "nibblecore"
        patch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_folder() == tmp_path / "home" / ".cache" / "nibblecore"
    monkeypatch.setenv("NIBBLECORE_CACHE", "~/here")
    assert cache_folder() == tmp_path / "home" / "here"
    monkeypatch.setenv("NIBBLECORE_CACHE", "")
    (checkout / "pyproject.toml").unlink()
    assert cache_folder() == tmp_path / "home" / ".cache" / "nibblecore"


def test_what_a_protected_checkout_has_is_used(checkout, tmp_path, monkeypatch):
    built = checkout / "build" / "sim" / "a"
    built.mkdir(parents=True)
    assert cached("sim", "a") == built
    protect(monkeypatch, checkout / "build")
    users = tmp_path / "home" / ".cache" / "nibblecore" / "sim"
    assert cached("sim", "a") == built and cached("sim", "b") == users / "b"
    monkeypatch.setenv("NIBBLECORE_CACHE", str(tmp_path / "named"))
    assert cached("sim", "a") == tmp_path / "named" / "sim" / "a"


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CacheError, match=r"file/sim: Not a directory; name a folder for what is built: NIBBLECORE_CACHE=/path/to/folder"
    ):
        kept(tmp_path / "file" / "sim" / "folder", lambda path: None)


def test_whoever_waits_says_so(tmp_path):
    making = "import sys, time; from pathlib import Path; from nibblecore.sim.kept import kept; "
    making += "kept(Path(sys.argv[1]), lambda path: (print('making', flush=True), time.sleep(3)))"
    command = [sys.executable, "-c", making, str(tmp_path / "folder")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "making\n"
    second = subprocess.run(command, capture_output=True, text=True)
    assert first.wait() == 0 and second.returncode == 0
    assert second.stdout == "" and second.stderr == "waiting for another process that works on folder\n"
