"""`scripts/download_roberta.sh` with a server of this test: what arrives, what is left behind."""

import argparse
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, SHARED, prepare

from fairseq_scl.cli import main

SCRIPT = ROOT / "scripts" / "download_roberta.sh"
BPE = ("encoder.json", "vocab.bpe", "dict.txt")
ARCHIVE = "/fairseq/models/roberta.large.tar.gz"


class Server(ThreadingHTTPServer):
    """Serves `files`; `requests` are the paths and ranges asked for so far."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.stop_after: list[int] = []  # bytes of the archive's next responses, before a cut
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
        start = int(asked[6:-1]) if asked and server.ranges else 0
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = self.path == ARCHIVE and server.stop_after
        self.wfile.write(body[start:][: server.stop_after.pop(0) if cut else None])

    def log_message(self, *_):
        pass


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


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def roberta(server, tmp_path):
    """The published files in small; the script, that knows their checksums."""
    files = {name: f"the {name}\n".encode() for name in BPE}
    text = SCRIPT.read_text()
    start, end = text.index('checksums="'), text.index("is_published()")
    sums = "\n".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}" for name in BPE)
    (tmp_path / "script.sh").write_text(f'{text[:start]}checksums="{sums}"\n{text[end:]}')
    server.files = {f"/fairseq/gpt2_bpe/{name}": text for name, text in files.items()}
    for size in ("base", "large"):
        members = {f"roberta.{size}/{name}": name.encode() * 500 for name in ("NOTE", "model.pt")}
        server.files[f"/fairseq/models/roberta.{size}.tar.gz"] = tarred(members)
    return server


def call(server, tmp_path, *arguments, script="script.sh", mirror=None):
    """Run the script; its folder is `tmp_path/out`."""
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment["FAIRSEQ_SCL_DOWNLOAD_URL"] = mirror or server.url
    command = ["bash", tmp_path / script, "out", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)


def refused(*arguments, **options) -> str:
    result = call(*arguments, **options)
    assert result.returncode
    assert result.stderr.startswith("download_roberta: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("download_roberta: ").rstrip("\n")


def content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("names", "size"), [([], "large"), (["base"], "base")])
def test_roberta_is_a_folder_with_its_tokenizer(roberta, tmp_path, names, size):
    for _ in range(2):
        result = call(roberta, tmp_path, *names)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"out/roberta.{size}: complete\n"
    assert content(tmp_path / "out") == {f"roberta.{size}/{name}" for name in (*BPE, "model.pt")}
    assert len(roberta.requests) == 4
    assert (tmp_path / "out" / f"roberta.{size}" / "model.pt").read_bytes() == b"model.pt" * 500


def test_a_cut_connection_is_resumed_where_it_broke(roberta, tmp_path):
    roberta.stop_after = [50, 30]
    assert call(roberta, tmp_path).returncode == 0
    asked = [range_ for path, range_ in roberta.requests if path == ARCHIVE]
    assert asked == [None, "bytes=50-", "bytes=80-"]


def test_another_call_goes_on(roberta, tmp_path):
    roberta.stop_after = [50, 0, 0, 0]
    assert f"{ARCHIVE} cannot be fetched" in refused(roberta, tmp_path)
    assert not (tmp_path / "out" / "roberta.large").exists()
    assert call(roberta, tmp_path).returncode == 0
    assert roberta.requests[-1] == (ARCHIVE, "bytes=50-")


def test_a_server_without_ranges_sends_all_again(roberta, tmp_path):
    roberta.ranges, roberta.stop_after = False, [50]
    assert call(roberta, tmp_path).returncode == 0
    assert (tmp_path / "out/roberta.large/model.pt").read_bytes() == b"model.pt" * 500


@pytest.mark.parametrize("more", [b"", b"more"])
def test_a_part_that_lacks_nothing_is_kept_and_one_too_long_is_not(roberta, tmp_path, more):
    part = tmp_path / "out/.roberta.large.part/roberta.large.tar.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(roberta.files[ARCHIVE] + more)
    calls = [call(roberta, tmp_path).returncode for _ in range(2)]
    assert calls in ([0, 0], [1, 0]) if more else calls == [0, 0]
    assert (tmp_path / "out/roberta.large/model.pt").read_bytes() == b"model.pt" * 500


def test_an_overloaded_server_is_asked_again_and_one_that_refuses_is_not(roberta, tmp_path):
    roberta.errors = [503, 403]
    told = refused(roberta, tmp_path)
    assert "/fairseq/gpt2_bpe/encoder.json cannot be fetched (HTTP status 403" in told
    assert len(roberta.requests) == 2


def test_a_wrong_tokenizer_file(roberta, tmp_path):
    roberta.files["/fairseq/gpt2_bpe/vocab.bpe"] += b" "
    assert refused(roberta, tmp_path).endswith("gpt2_bpe/vocab.bpe is not the published one")
    assert content(tmp_path / "out") == {".roberta.large.part/encoder.json"}


WHOLE = tarred({"roberta.large/model.pt": os.urandom(5000), "roberta.large/z": os.urandom(5000)})
LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}


@pytest.mark.parametrize(
    "archive",
    [
        WHOLE[:-30],
        WHOLE[:7000] + bytes([WHOLE[7000] ^ 255]) + WHOLE[7001:],  # in a member not wanted
        b"<html>Sign in to the hotel's network</html>",
        gzip.compress(b"no tar", mtime=0),
        tarred({"other": b"x"}),
        tarred({}, **{"roberta.large/model.pt": LINK}),
    ],
    ids=["cut off", "a bit flipped", "a web page", "no tar", "another member", "a link"],
)
def test_a_damaged_archive_is_not_kept(roberta, tmp_path, archive):
    roberta.files[ARCHIVE] = archive
    assert "is damaged or holds no roberta.large/model.pt" in refused(roberta, tmp_path)
    assert content(tmp_path / "out") == {f".roberta.large.part/{name}" for name in BPE}


def test_other_members_are_never_written(roberta, tmp_path):
    odd = {"../evil": {}, "/tmp/evil-of-a-test": {}, "roberta.large/link": LINK}
    members = {"roberta.large/model.pt": b"x", "../../evil": b"x"}
    roberta.files[ARCHIVE] = tarred(members, **odd)
    assert call(roberta, tmp_path).returncode == 0
    names = {"script.sh", *(f"out/roberta.large/{name}" for name in (*BPE, "model.pt"))}
    assert content(tmp_path) == names
    assert not list(tmp_path.parent.glob("evil")) and not Path("/tmp/evil-of-a-test").exists()


def test_an_incomplete_or_changed_roberta_is_told(roberta, tmp_path):
    call(roberta, tmp_path)
    folder = tmp_path / "out" / "roberta.large"
    (folder / "dict.txt").write_text("another\n")
    assert "dict.txt is not the published one; move out/" in refused(roberta, tmp_path)
    (folder / "model.pt").unlink()
    assert "model.pt is missing; move out/" in refused(roberta, tmp_path)


def test_no_network_is_told_in_one_line(roberta, tmp_path):
    told = refused(roberta, tmp_path, mirror="http://127.0.0.1:1")
    assert told.startswith("http://127.0.0.1:1/fairseq/gpt2_bpe/encoder.json cannot be fetched")


def test_wrong_arguments(roberta, tmp_path):
    assert refused(roberta, tmp_path, "huge") == "huge: what can be downloaded is base, large"
    told = "FAIRSEQ_SCL_DOWNLOAD_URL=file:///etc: it must begin with http:// or https://"
    assert refused(roberta, tmp_path, mirror="file:///etc") == told
    helped = subprocess.run(["bash", SCRIPT, "--help"], capture_output=True, text=True)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "bash scripts/download_roberta.sh DIR [" in helped.stdout
    alone = subprocess.run(["bash", SCRIPT], capture_output=True, text=True)
    assert (alone.returncode, alone.stderr) == (
        2, "download_roberta: DIR is missing (see --help)\n"
    )  # fmt: skip


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
    for name in BPE:
        server.files[f"/fairseq/gpt2_bpe/{name}"] = (SHARED / "gpt2_bpe" / name).read_bytes()
    save_small_model(SHARED / "gpt2_bpe" / "dict.txt", tmp_path / "model.pt")
    members = {"roberta.base/model.pt": (tmp_path / "model.pt").read_bytes()}
    server.files["/fairseq/models/roberta.base.tar.gz"] = tarred(members)
    result = call(server, tmp_path, "base", script=SCRIPT)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "out" / "roberta.base"
    main(["import-model", str(folder), str(tmp_path / "imported")])
    assert (tmp_path / "imported" / "train_flags.txt").is_file()
    for encoder in (folder, tmp_path / "imported"):
        output = prepare(tmp_path / f"data-{encoder.name}", encoder, "--data", "sample")
        assert (output / "prepared.json").is_file()
