"""Files that are written: never half, never in place of something that is no file."""

import os
import stat
import threading
from pathlib import Path

import pytest

from fairseq_scl.errors import UserError
from fairseq_scl.files import new_file, write_text


def test_a_device_stays_a_device(tmp_path):
    write_text(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    (tmp_path / "link").symlink_to("/dev/null")
    write_text(tmp_path / "link", "gone")
    assert (tmp_path / "link").is_symlink()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_fifo_is_written_to(tmp_path):
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    write_text(fifo, "a line\n")
    reader.join()
    assert read == ["a line\n"] and fifo.is_fifo()


def test_of_a_link_the_target_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "target"
    link.symlink_to(target)
    for text in ("one", "two"):  # a dangling link first
        write_text(link, text)
        assert link.is_symlink() and target.read_text() == text
    assert os.listdir(tmp_path / "elsewhere") == ["target"]


@pytest.mark.parametrize("kind", ["folder", "socket"])
def test_what_is_no_file_is_told(tmp_path, kind):
    import socket

    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    else:
        socket.socket(socket.AF_UNIX).bind(str(path))
    with pytest.raises(UserError, match="it is not a regular file"):
        write_text(path, "text")


def test_nothing_is_left_of_a_file_that_fails(tmp_path):
    (tmp_path / "out").write_text("before")
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "out") as temporary:
        temporary.with_name("absent").rename(temporary)
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "out", "half \ud800")
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "before"


def test_others_cannot_plant_a_link_where_the_temporary_file_will_be(tmp_path):
    with new_file(tmp_path / "out") as temporary:
        folder = temporary.parent
        assert folder.parent == tmp_path and stat.S_IMODE(folder.stat().st_mode) == 0o700
        temporary.write_text("text")
    with new_file(tmp_path / "out") as temporary:
        assert temporary.parent != folder
        temporary.write_text("text")


def test_the_umask_says_who_may_read(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "out", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
