"""Downloading from a server of this test: what arrives, what is refused, what is left behind."""

import argparse
import hashlib
import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import PACKAGE, ROOT, SHARED

from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
from fairseq_scl.preparation import download, fetch
from fairseq_scl.preparation.archives import unpack
from fairseq_scl.preparation.tables import GLUE, glue_tables

WNLI = "/glue/data/WNLI.zip"


class Server(ThreadingHTTPServer):
    """Serves `files`; `requests` are the paths and ranges asked for so far."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.stop_after: list[int] = []  # bytes of the next responses, before the connection is cut
        self.surplus = 0  # bytes announced that never come
        self.errors: list[int] = []  # status of the next responses
        self.ranges = True
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        server.requests.append((self.path, asked))
        if server.errors:
            return self.send_error(server.errors.pop(0))
        if self.path not in server.files:
            return self.send_error(404)
        body = server.files[self.path]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if not server.ranges:
            start = 0
        if start and start >= len(body) + server.surplus:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start + server.surplus))
        self.end_headers()
        stop = server.stop_after.pop(0) if server.stop_after else len(body)
        self.wfile.write(body[start : start + stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    server = Server()
    monkeypatch.setenv(download.MIRROR, server.url)
    monkeypatch.setattr(fetch, "PAUSE", 0)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def zipped(members: dict[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    """A `.zip`; the members in `links` are symbolic links."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name in links else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], **odd: dict) -> bytes:
    """A `.tar.gz`; `odd` members have these attributes of `TarInfo`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for name, attributes in odd.items():
            info = tarfile.TarInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            file.addfile(info)
    return buffer.getvalue()


def wnli(**rows: int) -> dict[str, bytes]:
    """The members of WNLI's archive, with as many rows as were published or told in `rows`."""
    members = {"WNLI/": b"", "WNLI/original/notes.txt": b"not needed"}
    for split, number in (GLUE["WNLI"].published_rows | rows).items():
        label = "" if split == "test" else "\tlabel"
        table = f"index\tsentence1\tsentence2{label}\n" + "".join(
            f"{i}\tThe jug fell {i} times.\tIt fell.{label and chr(9) + str(i % 2)}\n"
            for i in range(number)
        )
        members[f"WNLI/{GLUE['WNLI'].files[split]}"] = table.encode()
    return members


def content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def refused(*arguments) -> str:
    with pytest.raises(UserError) as error:
        main(["download", *map(str, arguments)])
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text.removeprefix("fairseq-scl: error: ")


# --- a file over HTTP


BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def file(server, tmp_path):
    """Path and URL of a file that is served."""
    server.files["/file"] = BODY
    return tmp_path / "folder" / "file", f"{server.url}/file"


def test_a_file_arrives_as_it_is(file):
    path, url = file
    fetch.fetch(url, path, SHA256)
    assert path.read_bytes() == BODY
    assert content(path.parent) == {"file"}


def test_a_cut_connection_is_resumed_where_it_broke(server, file):
    path, url = file
    server.stop_after = [1000, 3000]
    fetch.fetch(url, path, SHA256)
    assert path.read_bytes() == BODY
    assert server.requests == [("/file", None), ("/file", "bytes=1000-"), ("/file", "bytes=4000-")]


def test_another_call_goes_on(server, file, monkeypatch):
    path, url = file
    monkeypatch.setattr(fetch, "TRIES", 1)
    server.stop_after = [1000]
    with pytest.raises(UserError, match=r"1,000 of 10,240 bytes arrived"):
        fetch.fetch(url, path)
    assert content(path.parent) == {".file.part"}
    fetch.fetch(url, path, SHA256)
    assert server.requests[1:] == [("/file", "bytes=1000-")]
    assert content(path.parent) == {"file"}


def test_a_part_that_lacks_nothing_is_kept(server, file):
    path, url = file
    path.parent.mkdir()
    (path.parent / ".file.part").write_bytes(BODY)
    fetch.fetch(url, path, SHA256)
    assert server.requests == [("/file", f"bytes={len(BODY)}-")]


def test_a_part_that_is_too_long_is_fetched_anew(file):
    path, url = file
    path.parent.mkdir()
    (path.parent / ".file.part").write_bytes(BODY + b"more")
    fetch.fetch(url, path, SHA256)
    assert path.read_bytes() == BODY


def test_a_server_without_ranges_sends_all_again(server, file):
    path, url = file
    server.ranges, server.stop_after = False, [1000]
    fetch.fetch(url, path, SHA256)
    assert path.read_bytes() == BODY


def test_what_exists_is_not_asked_for(server, file):
    path, url = file
    path.parent.mkdir()
    path.write_bytes(b"here")
    fetch.fetch(url, path)
    assert server.requests == []


def test_less_than_announced_is_refused(server, file):
    path, url = file
    server.surplus = 5
    with pytest.raises(UserError, match=r"file: 10,240 of 10,245 bytes arrived \(4 tries\)"):
        fetch.fetch(url, path)
    assert not path.exists()


def test_an_overloaded_server_is_asked_again(server, file):
    path, url = file
    server.errors = [503, 500]
    fetch.fetch(url, path, SHA256)
    assert len(server.requests) == 3


def test_a_server_that_refuses_is_not_asked_again(server, file):
    path, url = file
    server.errors = [403]
    with pytest.raises(UserError, match=rf"{url}: HTTP 403 Forbidden$"):
        fetch.fetch(url, path)
    assert len(server.requests) == 1


def test_another_checksum_is_refused_and_nothing_kept(file):
    path, url = file
    with pytest.raises(UserError, match=rf"the sha256 is {SHA256}, it must be 0123"):
        fetch.fetch(url, path, "0123")
    assert content(path.parent) == set()


def test_a_full_disk_is_not_taken_for_the_network(server, file, monkeypatch):
    path, url = file

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match="No space left"):
        fetch.fetch(url, path)
    assert len(server.requests) == 1


# --- archives


def unpacked(tmp_path, name: str, data: bytes, member: str = "a/b.txt") -> bytes:
    """What is copied out of this archive."""
    (tmp_path / name).write_bytes(data)
    (tmp_path / "out").mkdir()
    try:
        unpack(tmp_path / name, {member: tmp_path / "out" / "b.txt"})
        return (tmp_path / "out" / "b.txt").read_bytes()
    finally:
        assert content(tmp_path) <= {name, "out/b.txt"}


def test_only_what_is_wanted_is_copied(tmp_path):
    members = {"a/": b"", "a/b.txt": b"wanted", "a/c.txt": b"other", "a/..d": b""}
    assert unpacked(tmp_path, "a.zip", zipped(members)) == b"wanted"


OUTSIDE = ["../evil", "a/../../evil", "/evil", "C:\\evil", "..\\evil", "\\\\host\\evil"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_member_outside_of_the_folder(tmp_path, name, pack):
    archive = "a.zip" if pack is zipped else "a.tar.gz"
    with pytest.raises(UserError, match="would be written outside of the folder"):
        unpacked(tmp_path, archive, pack({"a/b.txt": b"x", name: b"x"}))
    assert not list(tmp_path.parent.glob("evil"))


def test_a_symbolic_link_in_a_zip(tmp_path):
    data = zipped({"a/b.txt": b"x", "a/link": b"/etc/passwd"}, links=("a/link",))
    with pytest.raises(UserError, match="a.zip: member 'a/link' is a link or a device"):
        unpacked(tmp_path, "a.zip", data)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_link_or_a_device_in_a_tar(tmp_path, kind):
    data = tarred({"a/b.txt": b"x"}, odd={"type": kind, "linkname": "a/b.txt"})
    with pytest.raises(UserError, match="a.tar.gz: member 'odd' is a link or a device"):
        unpacked(tmp_path, "a.tar.gz", data)


def test_a_wanted_member_that_is_a_link(tmp_path):
    data = tarred({}, **{"a/b.txt": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}})
    with pytest.raises(UserError, match="is a link or a device"):
        unpacked(tmp_path, "a.tar.gz", data)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_that_is_a_bomb(tmp_path, name):
    zeros = {"a/b.txt": b"x", "a/c.txt": bytes(10_000_000)}
    data = (zipped if name == "a.zip" else tarred)(zeros)
    with pytest.raises(UserError, match="would unpack to more than 100 times its size"):
        unpacked(tmp_path, name, data)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_without_the_wanted_member(tmp_path, name):
    data = (zipped if name == "a.zip" else tarred)({"other": b"x"})
    with pytest.raises(
        UserError, match=rf"{name}: .*a/b.txt.*(no item|not found)|(no item).*b.txt"
    ):
        unpacked(tmp_path, name, data)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("how", ["cut", "flipped", "text"])
def test_a_damaged_archive(tmp_path, name, how):
    members = {"a/b.txt": os.urandom(5000), "a/z.txt": os.urandom(5000)}
    data = bytearray((zipped if name == "a.zip" else tarred)(members))
    if how == "cut":
        data = data[:-30]
    elif how == "flipped":  # in a member that is not wanted
        data[7000] ^= 255
    else:
        data = bytearray(b"<html>Sign in to the hotel's network</html>")
    with pytest.raises(UserError, match=rf"{name}.* is damaged"):
        unpacked(tmp_path, name, bytes(data))


# --- GLUE


def test_a_task_is_unpacked_checked_and_skipped_the_next_time(server, tmp_path, capsys):
    server.files[WNLI] = zipped(wnli())
    main(["download", "glue", str(tmp_path), "WNLI"])
    assert content(tmp_path) == {"WNLI/train.tsv", "WNLI/dev.tsv", "WNLI/test.tsv"}
    assert {s: len(list(r)) for s, r in glue_tables("WNLI", tmp_path).items()} == GLUE[
        "WNLI"
    ].published_rows
    assert server.requests == [(WNLI, None)]
    main(["download", "glue", str(tmp_path), "WNLI"])
    assert len(server.requests) == 1
    assert capsys.readouterr().out == f"{tmp_path / 'WNLI'}: complete\n" * 2


def test_a_download_that_was_cut_goes_on(server, tmp_path, monkeypatch):
    server.files[WNLI] = zipped(wnli())
    monkeypatch.setattr(fetch, "TRIES", 1)
    server.stop_after = [500]
    assert "500 of" in refused("glue", tmp_path, "WNLI")
    assert content(tmp_path) == {".WNLI.zip.part"}
    main(["download", "glue", str(tmp_path), "WNLI"])
    assert server.requests[1:] == [(WNLI, "bytes=500-")]
    assert (tmp_path / "WNLI" / "train.tsv").is_file()


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        (zipped(wnli())[:-10], "WNLI.zip is damaged"),
        (zipped(wnli(train=634)), "train has 634 rows, the published set 635: a subset?"),
        (zipped(wnli(test=147)), "test has 147 rows, the published set 146"),
        (zipped(wnli() | {"../evil": b""}), "'../evil' would be written outside"),
        (zipped(wnli() | {"WNLI/x": b"/"}, links=("WNLI/x",)), "'WNLI/x' is a link"),
        (zipped({"RTE/train.tsv": b""}), "no item named 'WNLI/train.tsv'"),
    ],
)
def test_a_wrong_archive_leaves_nothing(server, tmp_path, archive, told):
    server.files[WNLI] = archive
    assert told in refused("glue", tmp_path, "WNLI")
    assert list(tmp_path.iterdir()) == []


def test_a_subset_in_the_tasks_place_is_neither_used_nor_overwritten(server, tmp_path):
    for name, text in wnli(train=20).items():
        if name.endswith(".tsv"):
            (tmp_path / "WNLI").mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(text)
    told = f"{tmp_path / 'WNLI'}: train has 20 rows, the published set 635: a subset?; move it away"
    assert refused("glue", tmp_path, "WNLI").startswith(told)
    assert server.requests == []


def test_a_task_without_its_test_set_is_told(server, tmp_path):
    (tmp_path / "WNLI").mkdir()
    for name, text in wnli().items():
        if name.endswith(("train.tsv", "dev.tsv")):
            (tmp_path / name).write_bytes(text)
    assert "test.tsv is missing; move it away" in refused("glue", tmp_path, "WNLI")


def mrpc_sources() -> dict[str, bytes]:
    """SentEval's two files of MRPC and GLUE's list; every tenth pair is in the dev set."""
    rows = [f'{i % 2}\t{i}\t{i + 9000}\tHe ran {i}.\t"Ran" {i}\r\n' for i in range(4076 + 1725)]
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    dev = "".join(f"{i}\t{i + 9000}\n" for i in range(0, 4080, 10))
    return {
        "/senteval/senteval_data/msr_paraphrase_train.txt": (
            header + "".join(rows[:4076])
        ).encode(),
        "/senteval/senteval_data/msr_paraphrase_test.txt": (header + "".join(rows[4076:])).encode(),
        "/glue/data/mrpc_dev_ids.tsv": dev.encode(),
    }


def test_mrpc_is_assembled_as_published(server, tmp_path):
    server.files = mrpc_sources()
    main(["download", "glue", str(tmp_path), "MRPC"])
    assert content(tmp_path) == {"MRPC/train.tsv", "MRPC/dev.tsv", "MRPC/test.tsv"}
    lines = {
        split: (tmp_path / "MRPC" / f"{split}.tsv").read_text(encoding="utf-8").split("\n")
        for split in ("train", "dev", "test")
    }
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    assert lines["train"][:2] == [header, '1\t1\t9001\tHe ran 1.\t"Ran" 1']
    assert lines["dev"][:3] == [
        header,
        '0\t0\t9000\tHe ran 0.\t"Ran" 0',
        '0\t10\t9010\tHe ran 10.\t"Ran" 10',
    ]
    assert lines["test"][:2] == [
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String",
        '0\t4076\t13076\tHe ran 4076.\t"Ran" 4076',
    ]
    splits = glue_tables("MRPC", tmp_path)
    assert {split: len(list(rows)) for split, rows in splits.items()} == GLUE["MRPC"].published_rows


def test_mrpc_with_another_list_of_dev_pairs(server, tmp_path):
    server.files = mrpc_sources() | {"/glue/data/mrpc_dev_ids.tsv": b"0\t9000\n"}
    assert "train has 4,075 rows, the published set 3,668" in refused("glue", tmp_path, "MRPC")
    assert list(tmp_path.iterdir()) == []


def test_mrpc_from_empty_files(server, tmp_path):
    server.files = dict.fromkeys(mrpc_sources(), b"")
    assert "train.tsv is empty" in refused("glue", tmp_path, "MRPC")


def test_all_nine_tasks_are_the_default(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(download, "download_task", lambda task, folder: asked.append(folder))
    main(["download", "glue", str(tmp_path)])
    assert sorted(asked) == sorted(tmp_path / task for task in GLUE)


def test_the_archives_are_those_of_glues_own_script(server, tmp_path, monkeypatch):
    monkeypatch.delenv(download.MIRROR)
    urls = []

    def note(url, path, sha256=None):
        urls.append(url)
        raise UserError("noted")

    monkeypatch.setattr(download, "fetch", note)
    for task in download.GLUE_TASKS:
        refused("glue", tmp_path, task)
    assert urls == [
        *(
            f"https://dl.fbaipublicfiles.com/glue/data/{name}.zip"
            for name in ["CoLA", "SST-2", "STS-B", "QQP-clean", "MNLI", "QNLIv2", "RTE", "WNLI"]
        ),
        "https://dl.fbaipublicfiles.com/senteval/senteval_data/msr_paraphrase_train.txt",
    ]


# --- RoBERTa


@pytest.fixture
def roberta(server, monkeypatch):
    """The published files in small."""
    files = {name: f"the {name}\n".encode() for name in download.GPT2_BPE}
    checksums = {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}
    monkeypatch.setattr(download, "GPT2_BPE", checksums)
    server.files = {f"/fairseq/gpt2_bpe/{name}": text for name, text in files.items()}
    for size in download.ROBERTA_SIZES:
        members = {f"roberta.{size}/{name}": name.encode() for name in ("model.pt", "NOTE")}
        server.files[f"/fairseq/models/roberta.{size}.tar.gz"] = tarred(members)
    return server


@pytest.mark.parametrize(("names", "size"), [([], "large"), (["base"], "base")])
def test_roberta_is_a_folder_with_its_tokenizer(roberta, tmp_path, names, size):
    for _ in range(2):
        main(["download", "roberta", str(tmp_path), *names])
    expected = ("model.pt", "dict.txt", "encoder.json", "vocab.bpe")
    assert content(tmp_path) == {f"roberta.{size}/{name}" for name in expected}
    assert len(roberta.requests) == 4


def test_roberta_goes_on_after_a_cut(roberta, tmp_path, monkeypatch):
    archive = "/fairseq/models/roberta.large.tar.gz"
    monkeypatch.setattr(fetch, "TRIES", 1)
    roberta.stop_after = [99, 99, 99, 50]
    assert "50 of" in refused("roberta", tmp_path)
    assert content(tmp_path) == {".roberta.large.tar.gz.part"}
    main(["download", "roberta", str(tmp_path)])
    assert roberta.requests[-1] == (archive, "bytes=50-")


def test_a_wrong_tokenizer_file(roberta, tmp_path):
    roberta.files["/fairseq/gpt2_bpe/vocab.bpe"] += b" "
    assert "vocab.bpe: the sha256 is " in refused("roberta", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tar_with_a_link_leaves_nothing(roberta, tmp_path):
    data = tarred({"roberta.large/model.pt": b"x"}, odd={"type": tarfile.SYMTYPE, "linkname": "/"})
    roberta.files["/fairseq/models/roberta.large.tar.gz"] = data
    assert "member 'odd' is a link or a device" in refused("roberta", tmp_path, "large")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.pt", "dict.txt"])
def test_an_incomplete_roberta_is_told(roberta, tmp_path, name):
    main(["download", "roberta", str(tmp_path)])
    (tmp_path / "roberta.large" / name).unlink()
    assert f"{name} is missing; move " in refused("roberta", tmp_path)


def test_a_changed_roberta_is_told(roberta, tmp_path):
    main(["download", "roberta", str(tmp_path)])
    (tmp_path / "roberta.large" / "dict.txt").write_text("another\n")
    assert "dict.txt is not the published one; move " in refused("roberta", tmp_path)


def save_small_model(dictionary: Path, path: Path) -> None:
    """A RoBERTa for the real dictionary, of one narrow layer."""
    from fairseq_scl.encoders import import_model

    options = argparse.Namespace(
        arch="sentence_roberta",
        encoder_layers=1,
        encoder_embed_dim=8,
        encoder_ffn_embed_dim=8,
        encoder_attention_heads=2,
        max_positions=64,
    )
    import_model.save_checkpoint(import_model.build(options, dictionary), options, path)


@pytest.mark.needs_shared_data
def test_the_real_tokenizer_goes_into_import_model_and_prepare(server, tmp_path):
    from conftest import prepare

    names = ("encoder.json", "vocab.bpe", "dict.txt")
    for name in names:
        server.files[f"/fairseq/gpt2_bpe/{name}"] = (SHARED / "gpt2_bpe" / name).read_bytes()
    save_small_model(SHARED / "gpt2_bpe" / "dict.txt", tmp_path / "model.pt")
    members = {"roberta.base/model.pt": (tmp_path / "model.pt").read_bytes()}
    server.files["/fairseq/models/roberta.base.tar.gz"] = tarred(members)
    main(["download", "roberta", str(tmp_path), "base"])
    folder = tmp_path / "roberta.base"
    main(["import-model", str(folder), str(tmp_path / "imported")])
    assert (tmp_path / "imported" / "train_flags.txt").is_file()
    for encoder in (folder, tmp_path / "imported"):
        output = prepare(tmp_path / f"data-{encoder.name}", encoder, "--data", "sample")
        assert (output / "prepared.json").is_file()


# --- the command and the scripts


def test_no_network_is_told_in_one_line(tmp_path, monkeypatch, server):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv(download.MIRROR, url)
        told = f"{url}/glue/data/WNLI.zip: the server cannot be reached: "
        assert refused("glue", tmp_path, "WNLI").startswith(told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["glue", "x", "SST2"], "SST2: what can be downloaded of glue is CoLA, SST-2,"),
        (["roberta", "x", "huge"], "huge: what can be downloaded of roberta is base, large"),
    ],
)
def test_an_unknown_name(arguments, told):
    assert refused(*arguments).startswith(told)


def test_a_mirror_that_is_no_url(tmp_path, monkeypatch):
    monkeypatch.setenv(download.MIRROR, "file:///etc")
    told = f"{download.MIRROR}=file:///etc: it must begin with http:// or https://"
    assert refused("glue", tmp_path, "WNLI") == told


@pytest.mark.parametrize("name", ["glue", "roberta"])
def test_the_scripts_explain_themselves_and_want_a_folder(name):
    script = ["bash", f"scripts/download_{name}.sh"]
    helped = subprocess.run([*script, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert f"bash scripts/download_{name}.sh DIR [" in helped.stdout
    alone = subprocess.run(script, capture_output=True, text=True, cwd=ROOT)
    assert alone.returncode == 2
    assert alone.stderr == f"download_{name}: DIR is missing (see --help)\n"


@pytest.mark.skipif(
    not (ROOT / ".venv" / "bin" / "fairseq-scl").exists(), reason="scripts/setup.sh has not run"
)
def test_a_script_runs_in_any_folder_and_fails_in_one_line(server, tmp_path):
    server.files[WNLI] = zipped(wnli())
    command = ["bash", ROOT / "scripts" / "download_glue.sh", "glue", "WNLI"]
    first = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout == "glue/WNLI: complete\n"
    assert (tmp_path / "glue" / "WNLI" / "dev.tsv").is_file()
    failed = subprocess.run([*command, "RTE"], capture_output=True, text=True, cwd=tmp_path)
    assert failed.returncode == 1
    assert (
        failed.stderr == f"fairseq-scl: error: {server.url}/glue/data/RTE.zip: HTTP 404 Not Found\n"
    )


def test_downloading_needs_neither_torch_nor_fairseq():
    code = (
        "import sys, fairseq_scl.preparation.download; "
        "sys.exit(bool({'torch', 'fairseq'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
