"""export: transformers computes what fairseq does, from text on."""

import json

import pytest
import torch
from conftest import PACKAGE, SHARED, build_model, prepare, train
from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from test_import_model import SENTENCES, bert_source, mpnet_source, roberta_source
from tokenizers import ByteLevelBPETokenizer

from fairseq_scl.cli import main
from fairseq_scl.files import sha256
from fairseq_scl.inference import calibration, classifier
from fairseq_scl.models import saved
from fairseq_scl.preparation.tables import Columns, read_file

SOURCES = {"roberta": roberta_source, "bert": bert_source, "mpnet": mpnet_source}
PAIRS = [("A ferry.", "It left late."), ("Soup", "Best in town!"), ("why", ""), ("so " * 90, "x")]


def import_encoder(kind, folder):
    """A small random model of transformers, imported."""
    (folder / "source").mkdir()
    torch.manual_seed(2)  # whatever was tested before
    SOURCES[kind](folder / "source")
    main(["import-model", str(folder / "source"), str(folder / "encoder")])
    return folder / "encoder"


@pytest.fixture(scope="module", params=SOURCES)
def encoder_of(request, tmp_path_factory):
    return import_encoder(request.param, tmp_path_factory.mktemp(request.param))


def train_on(encoder, folder, data, *more):
    """A run of a few updates on prepared data."""
    flags = f"""
        {data} --user-dir {PACKAGE} --task few_shot_glue --criterion sentence_prediction_scl
        {(encoder / "train_flags.txt").read_text()} --finetune-from-model {encoder / "model.pt"}
        --optimizer fused_adam --lr 1e-3 --lr-scheduler fixed --max-update 12 --batch-size 8
        --no-epoch-checkpoints --num-workers 0 --cpu --save-dir {folder / "run"}
    """
    train([*flags.split(), *map(str, more)])
    return folder / "run"


def write_temperature(run, temperature=0.25):
    """A calibration.json far from 1."""
    checkpoint = saved.checkpoint_of(run)
    made = calibration.Calibration(
        temperature=temperature, rows=9, fitted_on="folds", checkpoint=sha256(checkpoint),
        refit=calibration.of_refit(checkpoint),
    )  # fmt: skip
    (run / calibration.NAME).write_text(made.model_dump_json())
    assert classifier.load(run, cpu=True).temperature == temperature


@pytest.fixture(scope="module")
def of_sentences(encoder_of, tmp_path_factory):
    """A run on single sentences and its export."""
    folder = tmp_path_factory.mktemp("sentences")
    data = prepare(folder / "data", encoder_of, "--data", "sample")
    run = train_on(encoder_of, folder, data, "--num-shots", 16)
    main(["evaluate", str(run)])
    write_temperature(run)
    main(["export", str(run), str(folder / "exported")])
    return run, folder / "exported"


def gpt2_encoder(folder):
    """As fairseq publishes RoBERTa: GPT-2's two files, whose ids are the dictionary's words."""
    folder.mkdir()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(SENTENCES, vocab_size=330, show_progress=False)
    tokenizer.save_model(str(folder))
    (folder / "vocab.json").rename(folder / "encoder.json")
    (folder / "merges.txt").rename(folder / "vocab.bpe")
    # by frequency in fairseq's, two tokens never seen, and filled up to a multiple
    words = [*map(str, reversed(range(2, 330))), "madeupword0000"]
    (folder / "dict.txt").write_text("".join(f"{word} 1\n" for word in words))
    return build_model(folder)


def prepare_pairs(folder, encoder, labels, *more):
    path = folder / "pairs.jsonl"
    records = [{"a": a, "b": b, "label": x} for (a, b), x in zip(PAIRS, labels, strict=True)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    files = ("--train", path, "--valid", path)
    return prepare(folder / "data", encoder, *files, "--sentence", "a", "--sentence2", "b", *more)


def logits_of_transformers(folder, rows):
    """Logits of rows, one batch a row, and of all rows in one batch."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [row if isinstance(row, tuple) else (row,) for row in rows]
    columns = [list(column) for column in zip(*texts, strict=True)]
    encoded = tokenizer(*columns, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        parts = [
            model(**{key: value[i : i + 64] for key, value in encoded.items()}).logits
            for i in range(0, len(rows), 64)
        ]
    return torch.cat(parts), encoded


def assert_same(run, exported, rows):
    loaded = classifier.load(run, cpu=True)
    ours = loaded.predict(rows)
    theirs, encoded = logits_of_transformers(exported, rows)
    assert encoded["attention_mask"].sum(1).tolist() == [len(ids) for ids in loaded.encode(rows)]
    if not loaded.classes:
        torch.testing.assert_close(
            theirs[:, 0], torch.tensor([p.label for p in ours]), rtol=0, atol=1e-4
        )
        return
    logits = torch.tensor([list(p.probabilities.values()) for p in ours]).log()
    torch.testing.assert_close(theirs.log_softmax(1), logits, rtol=0, atol=1e-4)
    assert theirs.std(0).max() > 2e-3  # the rows differ


def test_logits_are_fairseqs(of_sentences):
    rows = read_file(PACKAGE / "sample_data" / "test.tsv", Columns(("sentence",), "label"))
    assert_same(*of_sentences, [row.sentences[0] for row in rows] + ["", "long " * 400])


@pytest.mark.needs_shared_data
def test_logits_are_fairseqs_on_all_of_sst2s_validation_set(of_sentences):
    rows = read_file(SHARED / "glue" / "SST-2" / "dev.tsv", Columns(("sentence",), "label"))
    assert len(rows) == 872
    assert_same(*of_sentences, [row.sentences[0] for row in rows])


def test_pairs_and_regression(encoder_of, tmp_path):
    for name, labels, more, flags in (
        ("classes", ["no", "yes", "no", "perhaps"], (), ()),
        ("numbers", ["1", "0", "3", "2"], ("--regression",),
         ("--regression-target", "--scl-weight", 0)),
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        run = train_on(encoder_of, folder, prepare_pairs(folder, encoder_of, labels, *more), *flags)
        main(["export", str(run), str(folder / "exported")])
        assert_same(run, folder / "exported", PAIRS)


def test_a_pipeline_names_the_labels_and_the_card_holds_the_run(of_sentences):
    import transformers

    run, exported = of_sentences
    pipe = transformers.pipeline("text-classification", model=str(exported), device="cpu")
    sentences = ["a joy to watch", "so very dull", "it is fine"]
    expected = classifier.load(run, cpu=True).predict(sentences)
    for told, prediction in zip(pipe(sentences), expected, strict=True):
        assert told["label"] == prediction.label
        assert told["score"] == pytest.approx(max(prediction.probabilities.values()), abs=1e-4)
    text = (exported / "README.md").read_text()
    result = json.loads((run / "result.json").read_text())
    told = json.loads(text.split("```json\n")[1].split("```")[0])
    assert told["test"] == result["test"] and "Labels: negative, positive." in text
    assert (told["data"], told["N"], told["learning rate"]) == ("data", 16, 1e-3)
    assert str(run.parent) not in text and len(text) < 2000
    assert not list(exported.glob("*.bin"))


def test_what_is_exported_can_be_imported_bit_for_bit(of_sentences, tmp_path):
    run, exported = of_sentences
    main(["import-model", str(exported), str(tmp_path / "again")])
    model = classifier.load(run, cpu=True).model
    symbols = model.encoder.dictionary.symbols
    again = load_checkpoint_to_cpu(str(tmp_path / "again" / "model.pt"))["model"]
    lines = (tmp_path / "again" / "dict.txt").read_text().splitlines()
    kept = ["<s>", "<pad>", "</s>", "<unk>", *[line.rsplit(" ", 1)[0] for line in lines], "<mask>"]
    rows = [symbols.index(symbol) for symbol in kept]
    for name, tensor in model.state_dict().items():
        if name.startswith("encoder.sentence_encoder.") and not name.endswith("version"):
            mine = tensor[rows] if name.endswith("embed_tokens.weight") else tensor
            assert torch.equal(mine, again[name]), name


def test_gpt2s_two_files_become_a_tokenizer_json(tmp_path):
    import transformers

    encoder = gpt2_encoder(tmp_path / "encoder")
    data = prepare(tmp_path / "data", encoder, "--data", "sample")
    run = train_on(encoder, tmp_path, data, "--num-shots", 16)
    main(["export", str(run), str(tmp_path / "exported")])
    rows = [
        *SENTENCES,
        "naïve Ünïcödé, 日本語, 🙂 \u2028 too",
        "a  </s> <mask>, \ta <s>",
        '!"!"',
        "",
    ]
    assert_same(run, tmp_path / "exported", rows)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    theirs = tokenizer(rows, truncation=True)["input_ids"]
    ours = [ids.tolist() for ids in classifier.load(run, cpu=True).encode(rows)]
    unknown = 3  # two tokens that the dictionary lacks have ids after all of its own
    assert ours == [[i if i < 334 else unknown for i in ids] for ids in theirs]
    assert any(unknown in ids for ids in ours)


def test_what_transformers_does_not_compute_is_refused(recipe, of_sentences, tmp_path):
    run, exported = of_sentences
    train(recipe.flags(tmp_path / "mean", "--pooling", "mean", "--max-update", 1))
    with pytest.raises(SystemExit, match=r"mean cannot be exported: --pooling mean has no"):
        main(["export", str(tmp_path / "mean"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match=r"exported exists already"):
        main(["export", str(run), str(exported)])
