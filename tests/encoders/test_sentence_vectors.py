"""Folders of sentence-transformers: the vectors that their files say, or a line on why not."""

import json

import pytest
import torch
from test_import_model import (
    bert_source,
    distilbert_source,
    import_model,
    load,
    mpnet_source,
    multilingual_minilm_source,
    padded,
    roberta_source,
    sentencepiece_source,
)

from fairseq_scl.encoders.sentence_vectors import pooling_of
from fairseq_scl.errors import UserError

SOURCES = {  # the kinds of encoder that stand behind names of the hub
    "bge": (bert_source, "cls"),
    "bge-m3": (lambda folder: sentencepiece_source(folder, "XLMRoberta"), "cls"),
    "e5, gte": (bert_source, "mean"),
    "multilingual-e5": (lambda folder: sentencepiece_source(folder, "XLMRoberta"), "mean"),
    "all-distilroberta": (lambda folder: roberta_source(folder, num_hidden_layers=6), "mean"),
    "msmarco-distilbert": (distilbert_source, "mean"),
    "paraphrase-multilingual-MiniLM": (multilingual_minilm_source, "mean"),
    "all-mpnet": (mpnet_source, "mean"),
}


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def describe(folder, modes=("mean_tokens",), more=()):
    """The files that sentence-transformers writes beside an encoder."""
    kinds = ("Transformer", "Pooling", *more)
    modules = [
        {"idx": i, "name": str(i), "path": "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    write(folder / "modules.json", modules)
    every = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken")
    flags = {f"pooling_mode_{mode}": mode in modes for mode in every}
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32} | flags)
    told = {"prompts": {"query": "query: "}, "default_prompt_name": None}
    write(folder / "config_sentence_transformers.json", told)


@pytest.mark.parametrize("kind", SOURCES)
def test_vectors_are_those_of_the_definition(kind, tmp_path):
    """transformers' encoder, then pooling and normalising by hand, a sentence at a time."""
    make, pooling = SOURCES[kind]
    source = make(tmp_path)
    describe(tmp_path, [f"{pooling}_token" + "s" * (pooling == "mean")], ["Normalize"])
    import_model(tmp_path, tmp_path / "imported")
    imported = load(tmp_path / "imported")
    index = {symbol: i for i, symbol in enumerate(imported.symbols)}
    rows = source.batches(imported.args.max_positions)[0]
    ours = padded([[index[source.tokens[i]] for i in row] for row in rows], index["<pad>"])
    encoder = getattr(source.model, "base_model", source.model)
    with torch.no_grad():
        found = imported.model.sentence_vectors(ours)[0]
        for vector, row in zip(found, rows, strict=True):
            ids = torch.tensor([row])
            states = encoder(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
            expected = states[0] if pooling == "cls" else states.mean(0)
            torch.testing.assert_close(
                vector / vector.norm(), expected / expected.norm(), rtol=0, atol=1e-4
            )


@pytest.mark.parametrize(
    ("modes", "told"),
    [
        (["max_tokens"], "pooling_mode_max_tokens is not computed; one of pooling_mode_cls_token"),
        (["lasttoken"], "pooling_mode_lasttoken is not computed"),
        (["cls_token", "mean_tokens"], "pooling_mode_cls_token and pooling_mode_mean_tokens is"),
    ],
)
def test_poolings_that_are_not_computed(tmp_path, modes, told):
    describe(tmp_path, modes)
    with pytest.raises(UserError, match=told):
        pooling_of(tmp_path)


def test_steps_that_are_not_computed(tmp_path):
    describe(tmp_path, more=["Dense"])
    with pytest.raises(UserError, match=r"modules.json: Dense is not computed; known are Transf"):
        pooling_of(tmp_path)


def test_a_prompt_before_every_sentence(tmp_path):
    describe(tmp_path)
    write(tmp_path / "config_sentence_transformers.json", {"default_prompt_name": "query"})
    with pytest.raises(UserError, match="default_prompt_name is 'query', but no prompt is put"):
        pooling_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"]
)
@pytest.mark.parametrize("content", ["", "[", "3", '[{"type": 3}]', '{"type": 3, "a": NaN'])
def test_damaged_files_are_told_in_one_line(tmp_path, name, content):
    describe(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        pooling_of(tmp_path)
    assert name in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_folder_without_these_files(tmp_path):
    assert pooling_of(tmp_path) == "cls"
