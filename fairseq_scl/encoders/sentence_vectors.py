"""What a folder of sentence-transformers says of its sentence vectors.

A last step that normalises them is left out: the contrastive loss and kNN compare directions, and
the classification head learns from the vector as it was.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, RootModel

from fairseq_scl.errors import UserError
from fairseq_scl.files import read_model

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
COMPUTED = ("Transformer", "Pooling", "Normalize")
POOLINGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


class Module(BaseModel):
    """A step from a sentence to its vector."""

    model_config = ConfigDict(strict=True)
    type: str


class Modules(RootModel[list[Module]]):
    """The steps, in their order."""


class Pooling(BaseModel):
    """How the tokens' vectors become one; several ways at once are put behind each other."""

    model_config = ConfigDict(strict=True)
    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False


class Prompts(BaseModel):
    """Whether every sentence gets a text before it."""

    model_config = ConfigDict(strict=True)
    default_prompt_name: str | None = None


def pooling_of(folder: Path) -> str:
    """The pooling of an encoder; `cls` where the folder says none.

    Raises:
        UserError: for vectors that this project does not compute.
    """
    if (folder / MODULES).is_file():
        for module in read_model(folder / MODULES, Modules).root:
            kind = module.type.rsplit(".", 1)[-1]
            if kind not in COMPUTED:
                raise UserError(
                    f"{folder / MODULES}: {kind} is not computed; known are {', '.join(COMPUTED)}"
                )
    if (folder / PROMPTS).is_file():
        prompt = read_model(folder / PROMPTS, Prompts).default_prompt_name
        if prompt is not None:
            raise UserError(
                f"{folder / PROMPTS}: default_prompt_name is '{prompt}', but no prompt is put "
                "before sentences; set it to null, and write the prompt into your data"
            )
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "cls"
    modes = [name for name, on in read_model(path, Pooling) if on]
    if len(modes) > 1 or not set(modes) <= set(POOLINGS):
        told = f"{path}: {' and '.join(modes)} is not computed"
        raise UserError(f"{told}; one of {' and '.join(POOLINGS)} is")
    return POOLINGS[modes[0]] if modes else "cls"
