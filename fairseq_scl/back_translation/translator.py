"""Sampled translations with fairseq's translation models, the same whatever shares the batch.

Each sentence has random numbers of its own. What its neighbours could still change is the last bit
of the arithmetic: in single precision and padded batches, batches of 24 and of 64 disagreed on one
of 8,000 captions. So models compute in double precision, and a batch holds sentences of one length,
for fairseq's attention takes its softmax in single precision, where padding changes how it sums.
"""

from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import encoders
from fairseq.search import Search
from fairseq.sequence_generator import SequenceGenerator

from fairseq_scl.back_translation.translation_folder import subword_files
from fairseq_scl.errors import UserError


def equal_length_batches(lengths: dict[int, int], batch_size: int) -> Iterator[list[int]]:
    """Yield the keys of `lengths` in batches whose members are equally long."""
    alike = defaultdict(list)
    for key, length in lengths.items():
        alike[length].append(key)
    for keys in alike.values():
        for start in range(0, len(keys), batch_size):
            yield keys[start : start + batch_size]


class GumbelSampling(Search):
    """Sample the next token: the largest of log p + Gumbel noise is a draw from p.

    `generators` holds a generator for each sentence of the batch, by its `id`.
    """

    def __init__(self, target_dictionary):
        super().__init__(target_dictionary)
        self.generators: list[torch.Generator] = []

    def step(self, step, lprobs, scores, prev_output_tokens=None, original_batch_idxs=None):
        """See `Search.step`. The beam is one wide: `lprobs` is `(sentences, 1, vocabulary)`."""
        lprobs = lprobs.squeeze(1)
        uniform = torch.stack(
            [
                torch.rand(lprobs.size(1), dtype=torch.float64, generator=self.generators[i])
                for i in original_batch_idxs.tolist()
            ]
        )
        noise = -torch.log(-torch.log(uniform))  # -inf where uniform is 0, never +inf
        tokens = (lprobs.double() + noise.to(lprobs.device)).argmax(dim=1, keepdim=True)
        chosen = lprobs.gather(1, tokens)
        if step > 0:
            chosen = chosen + scores[:, :, step - 1]
        return chosen, tokens, torch.zeros_like(tokens)


class Translator:
    """A fairseq translation model, or an ensemble, with its dictionaries and subword model.

    Features:
        * `source` and `target` are its languages.
        * A sentence longer than the model's positions loses its end.
        * A translation has at most twice the tokens of its source and 20 more, and no `<unk>`.
    """

    def __init__(
        self,
        checkpoints: Sequence[Path],
        temperature: float,
        tokenizer: str,
        bpe: str,
        device: torch.device,
    ):
        """Load what lies in the folder of the first checkpoint, as fairseq's hub does.

        Raises:
            UserError: for what is missing, damaged or no translation model.
        """
        self.device = device
        self.models, self.task = _load(checkpoints)
        for model in self.models:
            model.to(device=device, dtype=torch.float64).eval()
        self.source, self.target = self.task.cfg.source_lang, self.task.cfg.target_lang
        self.encoders = _text_encoders(
            checkpoints[0].parent, tokenizer, bpe, (self.source, self.target)
        )
        self.positions = utils.resolve_max_positions(
            self.task.max_positions(), *[model.max_positions() for model in self.models]
        )[0]
        self.search = GumbelSampling(self.task.target_dictionary)
        self.generator = SequenceGenerator(
            self.models,
            self.task.target_dictionary,
            beam_size=1,
            max_len_a=2,
            max_len_b=20,
            unk_penalty=float("inf"),
            temperature=temperature,
            search_strategy=self.search,
        )

    def __call__(
        self, sentences: Sequence[str], seeds: Sequence[int], batch_size: int
    ) -> list[str]:
        """Translate each sentence with its own seed; an empty one stays empty."""
        encoded = {i: self.encode(text) for i, text in enumerate(sentences) if text.strip()}
        translated = [""] * len(sentences)
        lengths = {i: len(tokens) for i, tokens in encoded.items()}
        for batch in equal_length_batches(lengths, batch_size):
            targets = self.sample([encoded[i] for i in batch], [seeds[i] for i in batch])
            for i, tokens in zip(batch, targets, strict=True):
                translated[i] = self.decode(tokens)
        return translated

    def encode(self, sentence: str) -> torch.Tensor:
        """Dictionary ids of a sentence, `(tokens,)` int64, ending in `</s>`."""
        text = " ".join(sentence.split())  # fastBPE and subword-nmt translate a line
        for encoder in self.encoders:
            text = encoder.encode(text)
        tokens = self.task.source_dictionary.encode_line(text, add_if_not_exist=False).long()
        if len(tokens) > self.positions:
            tokens = torch.cat([tokens[: self.positions - 1], tokens[-1:]])
        return tokens

    def decode(self, tokens: torch.Tensor) -> str:
        """The text of dictionary ids."""
        text = self.task.target_dictionary.string(tokens)
        for encoder in reversed(self.encoders):
            text = encoder.decode(text)
        return text.strip()

    def sample(self, sources: Sequence[torch.Tensor], seeds: Sequence[int]) -> list[torch.Tensor]:
        """Sample a translation of each of `sources`, which are equally long.

        Args:
            sources: `(tokens,)` int64 each, as `encode` returns them.
            seeds: one for each.

        Returns:
            Dictionary ids of each translation, in the order of `sources`.
        """
        lengths = torch.tensor([len(tokens) for tokens in sources])
        dataset = self.task.build_dataset_for_inference(sources, lengths)
        batch = dataset.collater([dataset[i] for i in range(len(sources))])
        batch = utils.apply_to_sample(lambda tensor: tensor.to(self.device), batch)
        self.search.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        hypotheses = self.task.inference_step(self.generator, self.models, batch)
        by_id = dict(zip(batch["id"].tolist(), hypotheses, strict=True))
        return [by_id[i][0]["tokens"].cpu() for i in range(len(sources))]


def _load(checkpoints: Sequence[Path]) -> tuple[list, Any]:
    """The models and the task that they share."""
    folder = checkpoints[0].parent
    models: list = []
    task: Any = None
    for path in checkpoints:
        state = checkpoint_utils.load_checkpoint_to_cpu(str(path), {"data": str(folder)})
        described = state["cfg"].get("task")
        languages = [getattr(described, f"{end}_lang", None) or "" for end in ("source", "target")]
        if not all(languages):
            raise UserError(f"{path}: not a translation model, its task names no languages")
        for dictionary in (folder / f"dict.{language}.txt" for language in languages):
            if not dictionary.is_file():
                told = "a translation model lies beside its dictionaries"
                raise UserError(f"{dictionary} is missing, {told}")
        if task and languages != [task.cfg.source_lang, task.cfg.target_lang]:
            raise UserError(f"{path}: its languages are not those of {checkpoints[0]}")
        try:
            [model], cfg, task = checkpoint_utils.load_model_ensemble_and_task(
                [str(path)], state=state, task=task
            )
        except Exception as error:  # a foreign architecture or dictionary fails in many ways
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{path}: the model cannot be built ({reason})") from None
        model.prepare_for_inference_(cfg)
        models.append(model)
    return models, task


def _text_encoders(folder: Path, tokenizer: str, bpe: str, languages: tuple[str, str]) -> list:
    """fairseq's own tokenizer and subword encoder, but for what is `none`."""
    codes = next(iter(subword_files(folder, bpe)), None)
    options = Namespace(
        tokenizer=None if tokenizer == "none" else tokenizer,
        source_lang=languages[0],
        target_lang=languages[1],
        bpe=None if bpe == "none" else bpe,
        bpe_codes=str(codes),
        sentencepiece_model=str(codes),
    )
    try:
        found = encoders.build_tokenizer(options), encoders.build_bpe(options)
        return [encoder for encoder in found if encoder is not None]
    except ImportError as error:  # fairseq says which package, and how to install it
        raise UserError(f"--tokenizer {tokenizer} --bpe {bpe}: {error}") from None
    except Exception as error:  # the libraries raise whatever they like for broken files
        raise UserError(f"{codes} cannot be read ({error})") from None
