"""back-translate: sampling, resuming, the binarized form, and what it refuses."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PACKAGE, ROOT, SHARED, prepare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutations
from omegaconf import OmegaConf

from fairseq_scl.back_translation import back_translate
from fairseq_scl.back_translation.back_translate import Item, sentence_seed
from fairseq_scl.cli import main
from fairseq_scl.data import manifest, sampling
from fairseq_scl.data.rows import Choices
from fairseq_scl.data.translations import load_augmented
from fairseq_scl.errors import UserError
from fairseq_scl.preparation.tables import Columns, read_file

ROWS = [
    ("a warm bench and no crowds", "we stayed until dark", "yes"),
    ("he asked for feedback", "", "no"),
    ("the lamb fell off the bone", "nobody asked for the recipe", "yes"),
    ("", "cherry trees in full bloom", "no"),
    ("I bought a second copy", "he changed nothing", "yes"),
    ("it broke", "it broke again after a week, and the shop did not answer my letters", "no"),
]


def build_model(folder: Path, source: str, target: str, pieces: Path, seed: int) -> Path:
    """A randomly initialised translation model of one layer, with its dictionaries."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from sentencepiece import SentencePieceProcessor

    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(pieces, folder / "sentencepiece.bpe.model")
    model = SentencePieceProcessor(model_file=str(pieces))
    symbols = [model.id_to_piece(i) for i in range(3, model.get_piece_size())]
    for language in (source, target):
        (folder / f"dict.{language}.txt").write_text(
            "".join(f"{symbol} 1\n" for symbol in symbols), encoding="utf-8"
        )
    flags = f"""
        {folder} --task translation --source-lang {source} --target-lang {target}
        --arch transformer --encoder-layers 1 --decoder-layers 1
        --encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 16
        --decoder-ffn-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2
        --max-source-positions 32 --max-target-positions 12
    """
    args = options.parse_args_and_arch(options.get_training_parser(), flags.split())
    cfg = convert_namespace_to_omegaconf(args)
    torch.manual_seed(seed)
    network = tasks.setup_task(cfg.task).build_model(cfg.model)
    for parameter in network.parameters():  # far enough apart for sentences to differ
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    path = folder / f"model{seed}.pt"
    state = {  # as fairseq-train writes it; the 'args' of older ones take a second to read
        "args": None,
        "cfg": OmegaConf.to_container(cfg),
        "model": network.state_dict(),
        "optimizer_history": [{"num_updates": 0, "optimizer_name": "", "lr_scheduler_state": {}}],
        "extra_state": {"train_iterator": {"epoch": 1}},
        "last_optimizer_state": None,
    }
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """English-German and German-English, over pieces of the sample sentences."""
    from sentencepiece import SentencePieceTrainer

    folder = tmp_path_factory.mktemp("models")
    rows = read_file(PACKAGE / "sample_data" / "train.tsv", Columns(("sentence",), "label"))
    SentencePieceTrainer.train(
        sentence_iterator=(row.sentences[0] for row in rows),
        model_prefix=str(folder / "pieces"),
        model_type="bpe",
        vocab_size=90,
        minloglevel=2,
    )
    pieces = folder / "pieces.model"
    return (
        build_model(folder / "en-de", "en", "de", pieces, 1),
        build_model(folder / "de-en", "de", "en", pieces, 2),
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, encoder) -> Path:
    """Six prepared rows of two sentences, some of them empty, at most 24 tokens each."""
    folder = tmp_path_factory.mktemp("pairs")
    for split in ("train", "valid"):
        lines = ["one\ttwo\tlabel", *("\t".join(row) for row in ROWS)]
        (folder / f"{split}.tsv").write_text("".join(f"{line}\n" for line in lines))
    return prepare(
        folder / "data", encoder, "--train", folder / "train.tsv", "--valid", folder / "valid.tsv",
        "--sentence", "one", "--sentence2", "two", "--max-length", 24,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def kept_models(monkeypatch):
    """The models of a test are loaded once, however often it runs the command."""
    kept: dict = {}
    load = back_translate.load_translators

    def load_once(args: Namespace):
        key = (args.forward, args.backward, args.temperature, args.tokenizer, args.bpe)
        if key not in kept:
            kept[key] = load(args)
        return kept[key]

    monkeypatch.setattr(back_translate, "load_translators", load_once)


@pytest.fixture
def translate(encoder, models, tmp_path):
    """A function that runs the command on a copy of prepared data and returns its folder."""

    def run(data: Path, *more: object, name: str = "data", temperature: float = 0.7) -> Path:
        copy = tmp_path / name
        if not copy.exists():
            shutil.copytree(data, copy)
        main([
            "back-translate", str(copy), "--encoder", str(encoder), "--cpu",
            "--forward", str(models[0]), "--backward", str(models[1]),
            "--temperature", str(temperature), *map(str, more),
        ])  # fmt: skip
        return copy / "back-translation" / f"T{temperature:g}"

    return run


def records(folder: Path) -> dict[Item, list[str]]:
    """augmented.jsonl by row and copy, each of which stands there once."""
    lines = (folder / "augmented.jsonl").read_text(encoding="utf-8").splitlines()
    loaded = [json.loads(line) for line in lines]
    by_item = {Item(record["row"], record["copy"]): record["sentences"] for record in loaded}
    assert len(by_item) == len(lines)
    return by_item


def contents(folder: Path) -> dict[str, bytes]:
    """What every finished file holds."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_seed_depends_on_all_five_and_fits_torch():
    seeds = {
        sentence_seed(seed, Item(row, copy), sentence, direction)
        for seed in (1, 11)
        for row in (1, 11)
        for copy in (0, 1)
        for sentence in (0, 1)
        for direction in ("forward", "backward")
    }
    assert len(seeds) == 32
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_gumbel_sampling_draws_from_the_distribution():
    from fairseq.data import Dictionary

    from fairseq_scl.back_translation.translator import GumbelSampling

    dictionary = Dictionary()
    dictionary.add_symbol("a")
    probabilities = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
    search = GumbelSampling(dictionary)
    draws = 4000
    search.generators = [torch.Generator().manual_seed(i) for i in range(draws)]
    lprobs = probabilities.log().expand(draws, 1, 5)
    scores = torch.full((draws, 1, 1), -2.0)
    total, tokens, beams = search.step(1, lprobs, scores, None, torch.arange(draws))
    counts = torch.bincount(tokens.squeeze(1), minlength=5)
    # five standard deviations of a binomial
    tolerance = 5 * (draws * probabilities * (1 - probabilities)).sqrt()
    assert (counts - draws * probabilities).abs().le(tolerance).all()
    assert torch.allclose(total, lprobs[0, 0][tokens] - 2.0)
    assert not beams.any()


def test_batches_are_equally_long_and_hold_every_sentence():
    from fairseq_scl.back_translation.translator import equal_length_batches

    lengths = {0: 3, 1: 2, 2: 3, 3: 3, 5: 2}
    assert list(equal_length_batches(lengths, 2)) == [[0, 2], [3], [1, 5]]


def test_the_result_does_not_depend_on_the_batch_size(translate, pairs):
    folders = [translate(pairs, "--batch-size", n, name=f"b{n}") for n in (1, 3, 64)]
    first, *others = map(contents, folders)
    assert others == [first] * 2


def manifest_of(rows, path):
    """A manifest of a run on these training rows."""
    split = {"source": "train", "rows": manifest.compact(np.array(sorted(rows)))}
    content = {"files": {}, "choices": asdict(Choices()), "splits": {"train": split}, "flipped": {}}
    path.write_text(json.dumps({**content, "sha256": manifest.checksum(content)}))
    return path


def test_the_result_does_not_depend_on_the_order(translate, pairs, tmp_path):
    whole = translate(pairs, name="whole")
    for number, rows in enumerate(([4, 1], [5, 0, 1], range(6))):
        path = manifest_of(rows, tmp_path / f"manifest{number}.json")
        copies = 1 if number == 0 else 3
        parts = translate(pairs, "--manifest", path, "--copies", copies, name="parts")
    assert records(parts) == records(whole)
    for name in ("input0.bin", "input1.bin", "input0.idx", "index.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_seed_and_temperature_change_the_result(translate, pairs):
    first = translate(pairs, name="first")
    again = translate(pairs, name="again")
    seeded = translate(pairs, "--seed", 2, name="seeded")
    hotter = translate(pairs, name="first", temperature=1.5)
    assert records(again) == records(first)
    assert records(seeded) != records(first)
    assert records(hotter) != records(first)
    assert {folder.name for folder in first.parent.iterdir()} == {"T0.7", "T1.5"}


def test_a_low_temperature_is_the_greedy_translation(translate, pairs, models):
    from fairseq.sequence_generator import SequenceGenerator

    from fairseq_scl.back_translation.translator import Translator

    folder = translate(pairs, "--copies", 2, temperature=1e-6)
    texts = [text for row in ROWS for text in row[:2]]
    for path in models:
        translator = Translator([path], 1.0, "none", "sentencepiece", torch.device("cpu"))
        translator.generator = SequenceGenerator(  # fairseq's own search
            translator.models, translator.task.target_dictionary, beam_size=1,
            max_len_a=2, max_len_b=20, unk_penalty=float("inf"),
        )  # fmt: skip
        texts = translator(texts, [0] * len(texts), 1)
    expected = [texts[i : i + 2] for i in range(0, len(texts), 2)]
    assert records(folder) == {
        Item(row, copy): expected[row] for row in range(len(ROWS)) for copy in (0, 1)
    }


def test_both_sentences_are_paraphrased_and_empty_ones_stay_empty(translate, pairs):
    found = records(translate(pairs))
    assert set(found) == {Item(row, copy) for row in range(6) for copy in range(3)}
    for item, sentences in found.items():
        for text, paraphrase in zip(ROWS[item.row][:2], sentences, strict=True):
            assert bool(paraphrase) == bool(text)
            assert paraphrase != text or not text
            assert "<unk>" not in paraphrase
    assert len({tuple(found[Item(0, copy)]) for copy in range(3)}) > 1


def test_the_binarized_items_are_the_encoders_tokens_of_the_text(translate, pairs, encoder):
    from fairseq.data import Dictionary, data_utils

    from fairseq_scl.encoders.shorten import shortened_lengths
    from fairseq_scl.encoders.tokenizers import load_tokenizer
    from fairseq_scl.tasks.few_shot_glue import FewShotGlueTask

    folder = translate(pairs)
    dictionary: Dictionary = FewShotGlueTask.load_dictionary(str(encoder / "dict.txt"))
    tokenizer = load_tokenizer(encoder, dictionary.symbols)
    datasets = [data_utils.load_indexed_dataset(str(folder / f"input{i}")) for i in (0, 1)]
    found, items, shortened = records(folder), load_augmented(folder), 0
    assert list(items) == list(range(6))
    assert [number for numbers in items.values() for number in numbers] == list(range(18))
    for row, numbers in items.items():
        for copy, number in enumerate(numbers):
            tokens = tokenizer(found[Item(row, copy)])
            lengths = tuple(map(len, tokens))
            kept = shortened_lengths(lengths, 24 - 4)
            shortened += kept != lengths
            for dataset, ids, length in zip(datasets, tokens, kept, strict=True):
                assert dataset[number].tolist() == [*ids[:length], dictionary.eos()]
    assert shortened


def test_only_the_rows_of_the_draws_are_paraphrased(translate, data):
    folder = translate(data, "--num-shots", 4, "--shots-seed", 1, 2, "--copies", 1)
    names = (PACKAGE / "sample_data" / "train.tsv").read_text().splitlines()[1:]
    labels = np.array([int(line.endswith("positive")) for line in names])
    drawn = np.union1d(*(sampling.draw(labels, 4, seed) for seed in (1, 2)))
    assert list(load_augmented(folder)) == drawn.tolist()
    assert not (folder / "input1.bin").exists()


def test_an_ensemble_is_another_model(translate, pairs, models):
    second = build_model(
        models[0].parent, "en", "de", models[1].with_name("sentencepiece.bpe.model"), 3
    )
    single = translate(pairs, "--copies", 1, name="single")
    ensemble = f"{models[0]}{os.pathsep}{second}"
    both = translate(pairs, "--copies", 1, "--forward", ensemble, name="both")
    swapped = f"{second}{os.pathsep}{models[0]}"
    same = translate(pairs, "--copies", 1, "--forward", swapped, name="swapped")
    assert records(both) != records(single)
    assert records(both) == records(same)
    names = [entry["file"] for entry in json.loads((both / "settings.json").read_text())["forward"]]
    assert names == [
        "model1.pt", "model3.pt", "dict.de.txt", "dict.en.txt", "sentencepiece.bpe.model"
    ]  # fmt: skip


def test_a_checkpoint_of_wmt18s_time_is_read(translate, pairs, models, tmp_path):
    folder = shutil.copytree(models[0].parent, tmp_path / "en-de")
    state = torch.load(folder / "model1.pt", weights_only=True)
    cfg = state.pop("cfg")
    state["args"] = Namespace(**vars(cfg["model"]))  # all options in one namespace
    torch.save(state, folder / "model1.pt")
    expected = records(translate(pairs, "--copies", 1, name="today"))
    older = translate(pairs, "--copies", 1, "--forward", folder / "model1.pt", name="older")
    assert records(older) == expected


def test_an_input_beyond_the_models_positions_loses_its_end(models):
    from fairseq_scl.back_translation.translator import Translator

    translator = Translator([models[0]], 1.0, "none", "sentencepiece", torch.device("cpu"))
    long, longer = "a dark bench " * 20, "a dark bench " * 40
    tokens = translator.encode(long)
    assert len(tokens) == 32
    assert tokens[-1] == translator.task.source_dictionary.eos()
    assert translator([long], [1], 1) == translator([longer], [1], 1) != [""]


def test_a_finished_call_is_repeated_without_a_model(translate, pairs, monkeypatch):
    before = contents(translate(pairs))
    monkeypatch.setattr(back_translate, "load_translators", None)
    assert contents(translate(pairs)) == before
    assert contents(translate(pairs, "--copies", 1)) == before


def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(translate, pairs, capsys):
    folder = translate(pairs, "--batch-size", 4)
    expected = contents(folder)
    text = expected["augmented.jsonl"]

    @settings(max_examples=12, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.integers(0, len(text)))
    def check(length):
        (folder / "augmented.jsonl").write_bytes(text[:length])
        (folder / "index.json").unlink()
        capsys.readouterr()
        translate(pairs, "--batch-size", 4)
        assert contents(folder) == expected
        cut = length > 0 and text[length - 1 : length] != b"\n"
        assert ("dropped a last line that was cut short" in capsys.readouterr().err) == cut

    check()


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_call_that_dies_between_batches_is_completed(translate, pairs, monkeypatch, batches):
    expected = contents(translate(pairs, name="whole"))
    left, work = iter(range(batches)), back_translate.round_trip

    def die_after_some(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return work(*args)

    with monkeypatch.context() as patch:
        patch.setattr(back_translate, "round_trip", die_after_some)
        with pytest.raises(SystemExit, match="130"):
            translate(pairs, "--batch-size", 4, name="killed")
    finished = translate(pairs, "--batch-size", 4, name="killed")
    assert contents(finished) == expected


def test_an_unfinished_folder_is_not_loaded(tmp_path):
    with pytest.raises(SystemExit, match="index.json is missing; make it"):
        load_augmented(tmp_path)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--temperature 0", "--temperature 0 must be above 0"),
        ("--temperature -1", "--temperature -1 must be above 0"),
        ("--temperature nan", "--temperature nan must be above 0"),
        ("--copies 0", "--copies 0 must be at least 1"),
        ("--batch-size 0", "--batch-size 0 must be at least 1"),
        ("--num-shots 7", "--num-shots 7 of .*: 7 rows asked for, but the data has 6"),
        ("--num-shots 2 --manifest x", "give either --manifest or --num-shots"),
        ("--manifest nowhere.json", r"nowhere.json cannot be read \(No such file"),
        ("--forward nowhere.pt", "--forward nowhere.pt: no such checkpoint"),
        ("--encoder nowhere", "nowhere/dict.txt is missing"),
        ("--bpe subword_nmt", "has no bpecodes or code, which --bpe subword_nmt reads"),
    ],
)
def test_a_wrong_flag_is_told_in_one_line(translate, pairs, flags, told):
    with pytest.raises(SystemExit, match=told) as error:
        translate(pairs, *flags.split())
    assert "\n" not in str(error.value)


def test_an_unknown_row_in_a_manifest_is_told(translate, pairs, tmp_path):
    path = manifest_of([0, 6], tmp_path / "manifest.json")
    with pytest.raises(SystemExit, match="row 6 is not among 0 to 5"):
        translate(pairs, "--manifest", path)


def test_missing_text_is_told(translate, pairs, tmp_path):
    shutil.copytree(pairs, tmp_path / "data")
    (tmp_path / "data" / "text" / "train.jsonl").unlink()
    with pytest.raises(SystemExit, match=r"train.jsonl is missing; make the data with"):
        translate(pairs)


def test_a_missing_dictionary_is_told(translate, pairs, models, tmp_path):
    shutil.copytree(models[0].parent, tmp_path / "en-de")
    (tmp_path / "en-de" / "dict.de.txt").unlink()
    with pytest.raises(SystemExit, match=r"en-de/dict.de.txt is missing"):
        translate(pairs, "--forward", tmp_path / "en-de" / "model1.pt")


def test_directions_must_undo_each_other(translate, pairs, models):
    with pytest.raises(SystemExit, match="--backward translates en-de, --forward en-de"):
        translate(pairs, "--backward", models[0])
    translate(pairs, "--copies", 1)  # what could not start has settled nothing


def test_an_encoder_is_no_translation_model(translate, pairs, encoder, models, tmp_path):
    folder = shutil.copytree(models[0].parent, tmp_path / "en-de")
    shutil.copy(encoder / "model.pt", folder / "model.pt")
    with pytest.raises(SystemExit, match="not a translation model, its task names no languages"):
        translate(pairs, "--forward", folder / "model.pt")


def test_a_dictionary_of_another_model_is_told_in_one_line(translate, pairs, models, tmp_path):
    folder = shutil.copytree(models[0].parent, tmp_path / "en-de")
    with open(folder / "dict.de.txt", "a") as file:
        file.write("another 1\n")
    with pytest.raises(SystemExit, match="the model cannot be built .*size mismatch") as error:
        translate(pairs, "--forward", folder / "model1.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "flags", "package"),
    [
        ("sacremoses", ["--tokenizer", "moses"], "sacremoses"),
        ("subword_nmt", ["--bpe", "subword_nmt"], "subword-nmt"),
        ("fastBPE", ["--bpe", "fastbpe"], "fastBPE"),
    ],
)
def test_a_missing_package_is_told(
    translate, pairs, models, tmp_path, monkeypatch, module, flags, package
):
    folder = shutil.copytree(models[0].parent, tmp_path / "en-de")
    (folder / "bpecodes").write_text("#version: 0.2\n")
    (models[1].parent / "bpecodes").write_text("#version: 0.2\n")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit, match=f"pip install {package}"):
        translate(pairs, "--forward", folder / "model1.pt", *flags)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--seed", 2], r"made with another seed \(1, not 2\); move .*T0.7 away first"),
        (["--bpe", "none"], "made with another bpe; move"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(translate, pairs, flags, told):
    before = contents(translate(pairs, "--copies", 1))
    with pytest.raises(SystemExit, match=told):
        translate(pairs, *flags)
    assert contents(translate(pairs, "--copies", 1)) == before


def test_another_model_in_the_same_folder_is_refused(translate, pairs, models, tmp_path):
    translate(pairs, "--copies", 1)
    other = build_model(
        tmp_path / "en-de", "en", "de", models[0].with_name("sentencepiece.bpe.model"), 4
    )
    with pytest.raises(SystemExit, match="made with another forward; move"):
        translate(pairs, "--forward", other)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{}", "row: Field required"),
        ("no JSON", "the whole: Invalid JSON"),
        ("[" * 100_000, "the whole: Invalid JSON: recursion limit exceeded"),
        ('{"row": 0, "copy": 0, "sentences": ["a"]}', "not of a row of the training text"),
        ('{"row": 10, "copy": 0, "sentences": ["a", "b"]}', "not of a row of the training text"),
        ('{"row": -1, "copy": 0, "sentences": ["a", "b"]}', "row: Input should be greater"),
        ('{"row": 0, "copy": 0, "sentences": [1, 2]}', "sentences.0: Input should be a valid str"),
    ],
)
def test_a_damaged_line_is_named(translate, pairs, line, told):
    path = translate(pairs, "--copies", 1) / "augmented.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{text}\n" for text in [*lines, line]))
    with pytest.raises(SystemExit, match=rf"augmented.jsonl, row 7: {told}"):
        translate(pairs)


def test_a_second_copy_of_a_line_is_named(translate, pairs):
    path = translate(pairs, "--copies", 1) / "augmented.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(SystemExit, match=r"row 7: .*a copy that stands above"):
        translate(pairs)


def test_whatever_else_stands_in_the_settings_is_told_in_one_line(translate, pairs):
    path = translate(pairs, "--copies", 1) / "settings.json"
    said = json.loads(path.read_text())
    for what, changed in mutations(said):
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError, match="settings.json") as error:
            translate(pairs, "--copies", 1)
        assert len(str(error.value).splitlines()) == 1, what


def test_whatever_else_stands_in_an_index_is_told_in_one_line(tmp_path):
    said = {"rows": [0, 0, 2], "copies": [0, 1, 0]}
    for what, changed in mutations(said):
        (tmp_path / "index.json").write_text(json.dumps(changed))
        try:
            load_augmented(tmp_path)
        except UserError as error:
            assert str(error).count("index.json: ") == 1, what  # noqa: PT017


def test_text_of_unknown_settings_is_refused(translate, pairs):
    folder = translate(pairs, "--copies", 1)
    (folder / "settings.json").unlink()
    with pytest.raises(SystemExit, match="settings.json is missing"):
        translate(pairs)


def test_a_folder_in_use_is_refused(translate, pairs):
    folder = translate(pairs, "--copies", 1)
    with open(folder / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match=r"T0.7 is in use by another process"):
            translate(pairs)
    translate(pairs)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "OUTPUT is missing"),
        ("out --data nowhere", "nowhere/train.en.gz is missing"),
        ("out --updates many", "must be a whole number above 0"),
        ("out --updates", "needs a value"),
        ("out --copy nowhere", "--copy nowhere is no file"),
        ("out other", "one OUTPUT"),
        ("--colour", "unknown option --colour"),
    ],
)
def test_the_training_script_refuses_what_it_does_not_know(arguments, told):
    command = ["bash", "scripts/train_translation.sh", *arguments.split()]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.needs_shared_data
def test_models_of_multi30k_translate(pairs, encoder, tmp_path):
    command = ["bash", "scripts/train_translation.sh", tmp_path / "models", "--updates", "10"]
    command += ["--data", SHARED / "multi30k"]
    first = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert first.stdout.count("BLEU") == first.stdout.count("chrF2") == 2
    for pair in ("en-de", "de-en"):
        assert sorted(path.name for path in (tmp_path / "models" / pair).iterdir()) == [
            "dict.de.txt", "dict.en.txt", "model.pt", "sentencepiece.bpe.model"
        ]  # fmt: skip
    second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "fairseq-train" not in second.stdout
    data = shutil.copytree(pairs, tmp_path / "data")
    main([
        "back-translate", str(data), "--encoder", str(encoder), "--temperature", "0.5",
        "--forward", str(tmp_path / "models" / "en-de" / "model.pt"),
        "--backward", str(tmp_path / "models" / "de-en" / "model.pt"),
    ])  # fmt: skip
    assert len(records(data / "back-translation" / "T0.5")) == 18


def english_sentences() -> list[str]:
    """5,000 sentences of QNLI, MNLI and RTE, written as SST-2's are: small letters."""
    import csv
    import random

    found = set()
    columns = {"QNLI": ("question", "sentence"), "MNLI": ("sentence1", "sentence2")}
    for task in ("QNLI", "MNLI", "RTE"):
        path = SHARED / "glue" / task / "train.tsv"
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                for column in columns.get(task, ("sentence1", "sentence2")):
                    sentence = (row[column] or "").strip().lower()
                    if 3 <= len(sentence.split()) <= 25:
                        found.add(sentence)
    sentences = sorted(found)
    random.Random(1).shuffle(sentences)
    return sentences[:5000]


@pytest.mark.slow
@pytest.mark.needs_shared_data
@pytest.mark.timeout(3600)  # 20 minutes on two free cores
def test_distance_from_sst2_grows_with_the_temperature(tmp_path):
    """900 translations of 300 rows, by models that learned to copy English other than SST-2."""
    import sacrebleu

    (tmp_path / "english.txt").write_text("\n".join(english_sentences()) + "\n", encoding="utf-8")
    models = tmp_path / "models"
    command = ["bash", "scripts/train_translation.sh", models, "--copy", tmp_path / "english.txt"]
    subprocess.run([*command, "--data", SHARED / "multi30k"], cwd=ROOT, check=True)
    main(["import-model", "minilm", str(tmp_path / "minilm")])
    data = prepare(
        tmp_path / "sst2",
        tmp_path / "minilm",
        "--data",
        "glue:SST-2",
        "--glue-dir",
        SHARED / "glue",
    )
    text = [json.loads(line) for line in (data / "text" / "train.jsonl").open(encoding="utf-8")]
    distances = []
    for temperature in ("0.3", "0.5", "0.7", "0.9"):
        main([
            "back-translate", str(data), "--encoder", str(tmp_path / "minilm"),
            "--temperature", temperature, "--num-shots", "100", "--shots-seed", "1", "2", "3",
            "--forward", str(models / "en-de" / "model.pt"),
            "--backward", str(models / "de-en" / "model.pt"),
        ])  # fmt: skip
        distances.append([
            100 - sacrebleu.sentence_chrf(record["sentences"][0], text[record["row"]]).score
            for record in records(data / "back-translation" / f"T{temperature}")
        ])  # fmt: skip
    steps = np.diff(np.array(distances), axis=0)  # paired: the same rows and copies
    assert steps.shape == (3, 900)
    assert (steps.mean(1) - 1.96 * steps.std(1, ddof=1) / 30 > 0).all(), steps.mean(1)
