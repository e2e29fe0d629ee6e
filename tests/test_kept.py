import threading
import time

import pytest
from nibblecore.sim.kept import kept


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
