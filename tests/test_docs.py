"""README and docs: every command shown is parsed, every file, flag and import named exists."""

import argparse
import ast
import importlib
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest
from conftest import PACKAGE, ROOT, configure

from fairseq_scl import cli

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
IN_REPOSITORY = re.compile(r"(?:fairseq_scl|scripts|tests|configs|docs)/[\w./-]*|\w+\.(?:toml|cfg)")
HYDRA = ("fairseq-hydra-train", "fairseq_scl.studies.study")
OTHERS = {"source", "echo", "pip", "tensorboard", "git", "cd", "mkdocs"}  # not this project's
PREPARED = {"input0/", "input1/", "label/", "text/", "tokenizer/"}  # what `prepare` writes
OPERATORS = {"|", "||", "&&", ";", "&"}
# what a shell would put in place of these; none of it need exist
SUBSTITUTIONS = {
    '"$(fairseq-scl user-dir)"': f"'{PACKAGE}'",
    '"$(fairseq-scl user-dir)/configs"': f"'{PACKAGE}/configs'",
    "$(cat encoders/minilm/train_flags.txt)": "--arch minilm_l6 --max-positions 512 --init-token 0",
    # the rest of what it prints is parsed in test_recipe.py
    "$(fairseq-scl recipe encoders/minilm 20 --validate)": (
        "--task few_shot_glue --arch minilm_l6 --criterion sentence_prediction_scl"
    ),
    "$PWD": str(ROOT),
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(language: str) -> list:
    """The fenced blocks of a language, a test parameter each."""
    return [
        pytest.param(body, id=f"{name(page)}-{number}")
        for page in PAGES
        for number, (kind, body) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
        if kind == language
    ]


def commands(block: str) -> list[list[str]]:
    """The words of each command, a pipe's commands apart."""
    text = block.replace("\\\n", " ")
    for shown, meant in SUBSTITUTIONS.items():
        text = text.replace(shown, meant)
    found: list[list[str]] = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        found.append([])
        for word in lexer:
            if word in OPERATORS:
                found.append([])
            else:
                found[-1].append(word)
    return [words for words in found if words]


SHOWN = [
    pytest.param(words, id=f"{parameter.id}-{' '.join(words[:3])}")
    for parameter in blocks("bash")
    for words in commands(parameter.values[0])
]


def launched(words: list[str]) -> list[str]:
    """What torchrun or srun starts."""
    if words[0] in ("torchrun", "srun"):
        start = next(i for i, word in enumerate(words) if Path(word).name.startswith("fairseq"))
        words = words[start:]
    return [Path(words[0]).name, *words[1:]]


@pytest.mark.parametrize("block", blocks("bash"))
def test_bash_parses(block):
    result = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("words", SHOWN)
def test_a_command_takes_its_flags(words):
    words = launched(words)
    match words:
        case ["fairseq-scl", "train", *flags]:
            configure([*flags, "--user-dir", str(PACKAGE)])
        case ["fairseq-scl", "user-dir"]:
            pass
        case ["fairseq-scl", command, *arguments]:
            if [command] in cli.TAKE_FLAGS and "--" in arguments:
                arguments, more = split_at(arguments)
                if command == "finetune":
                    configure(["data", "--user-dir", str(PACKAGE), "--arch", "minilm_l6", *more])
            parser_of(command).parse_args(arguments)
        case ["fairseq-train", *flags]:
            configure(flags)
        case ["fairseq-hydra-train", *arguments] | ["python", "-m", _, "--multirun", *arguments]:
            assert words[0] in HYDRA or words[2] in HYDRA
            require_configuration(arguments)
        case ["bash", script, *arguments]:
            require_options(ROOT / script, arguments)
        case [".venv/bin/python", script, *arguments]:
            require_options(ROOT / script, arguments)
        case [program, *_]:
            assert program in OTHERS


def split_at(words: list[str]) -> tuple[list[str], list[str]]:
    """What stands before `--`, and after it."""
    at = words.index("--")
    return words[:at], words[at + 1 :]


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a subcommand of fairseq-scl."""
    module = importlib.import_module(f"fairseq_scl.{cli.COMMANDS[command][0]}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser


def require_configuration(arguments: list[str]) -> None:
    """Let Hydra compose what the command names, one run of a multirun."""
    from fairseq.dataclass.initialize import hydra_init
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser

    flags, overrides = arguments[:4], arguments[4:]
    assert flags[::2] == ["--config-dir", "--config-name"]
    assert (ROOT / flags[1] / f"{flags[3]}.yaml").is_file()
    first = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_hydra_override():
            continue
        value = next(override.sweep_string_iterator()) if override.is_sweep_override() else None
        key = override.input_line.partition("=")[0]
        first.append(override.input_line if value is None else f"{key}={value}")
    hydra_init("finetune")
    with initialize_config_dir(str(ROOT / flags[1]), version_base="1.1"):
        compose(flags[3], overrides=first)


def require_options(script: Path, arguments: list[str]) -> None:
    """The script exists, and its text names the options."""
    assert script.is_file(), script
    if script.name == "test.sh":  # they are pytest's
        return
    text = script.read_text(encoding="utf-8")
    for word in arguments:
        if word.startswith("--") and word != "--":
            assert re.search(rf"(?<![\w-]){word}(?![\w-])", text), f"{script.name} has no {word}"


@pytest.mark.parametrize("block", blocks("python"))
def test_python_compiles_and_its_imports_work(block):
    tree = ast.parse(block)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports, "a block shows where its names come from"
    exec(compile(ast.Module(imports, []), "block", "exec"), {})


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in map("".join, LINK.findall(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target), link


def spans(page: Path) -> list[str]:
    """What a page sets as code in its running text."""
    return SPAN.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_named_exist(page):
    for span in spans(page):
        if IN_REPOSITORY.fullmatch(span):
            assert (ROOT / span).exists(), span
        elif re.fullmatch(r"(?:\w+/)+(?:\w+\.py)?", span) and span not in PREPARED:
            assert (PACKAGE / span).exists() or (ROOT / span).exists(), span


@cache
def known_flags() -> set[str]:
    """Every flag of fairseq-train with the plugin, of fairseq-scl and of the scripts."""
    from fairseq import options, tasks  # noqa: F401
    from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
    from fairseq.dataclass.utils import gen_parser_from_dataclass
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    from fairseq_scl import flags

    parsers = [options.get_training_parser()]
    gen_parser_from_dataclass(parsers[0], TASK_DATACLASS_REGISTRY["sentence_prediction"]())
    gen_parser_from_dataclass(parsers[0], CRITERION_DATACLASS_REGISTRY["sentence_prediction"]())
    found = {flag for parser in parsers for action in parser._actions
             for flag in action.option_strings}  # fmt: skip
    found.update(*(cli.flags_of(parser_of(command)) for command in cli.COMMANDS))
    found |= {a.option_strings[0] for section in flags.sections().values() for a in section}
    for script in (ROOT / "scripts").iterdir():
        if script.is_file():
            found |= set(re.findall(r"--[a-z][\w-]+", script.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_flags_named_exist(page):
    for span in spans(page):
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span):
            assert flag in known_flags(), flag


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {page.name for page in DOCS.glob("*.md")}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_page_of_flags_is_filled_from_the_code(monkeypatch):
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(DOCS)
    hooks = importlib.import_module("hooks")
    page = hooks.on_page_markdown((DOCS / "flags.md").read_text(encoding="utf-8"))
    for flag in ("--scl-weight", "--num-shots", "--pooling", "--adam-betas"):
        assert f"| `{flag}` |" in page
    assert hooks.on_page_markdown("as it is") == "as it is"
