"""Fetch GLUE's published files, or fairseq's RoBERTa; check and unpack them.

    fairseq-scl download glue data/glue SST-2 QNLI     # default: all nine tasks
    fairseq-scl download roberta encoders base         # default: large

DIR receives a folder for each name: data/glue/SST-2 with train.tsv, dev.tsv and test.tsv, as
'prepare --glue-dir data/glue' takes it; encoders/roberta.base with model.pt, dict.txt, encoder.json
and vocab.bpe, as 'import-model' and 'prepare --encoder' take it. What is complete is skipped; what
was cut short goes on where it stopped. The environment variable FAIRSEQ_SCL_DOWNLOAD_URL names a
mirror of https://dl.fbaipublicfiles.com.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairseq_scl.encoders import encoder_folder
from fairseq_scl.errors import UserError
from fairseq_scl.files import new_folder, sha256
from fairseq_scl.preparation.archives import unpack
from fairseq_scl.preparation.fetch import fetch
from fairseq_scl.preparation.tables import GLUE, task_tables, unlike_published

MIRROR = "FAIRSEQ_SCL_DOWNLOAD_URL"
# https://dl.fbaipublicfiles.com/glue/data/NAME.zip, the names of GLUE's download_glue_data.py
GLUE_ARCHIVES = {
    "CoLA": "CoLA",
    "SST-2": "SST-2",
    "STS-B": "STS-B",
    "QQP": "QQP-clean",
    "MNLI": "MNLI",
    "QNLI": "QNLIv2",
    "RTE": "RTE",
    "WNLI": "WNLI",
}
# GLUE may not distribute MRPC: SentEval has the sentences (tokenized), GLUE lists the dev set
MRPC_TRAIN = "senteval/senteval_data/msr_paraphrase_train.txt"
MRPC_TEST = "senteval/senteval_data/msr_paraphrase_test.txt"
MRPC_DEV_IDS = "glue/data/mrpc_dev_ids.tsv"
GLUE_TASKS = (*GLUE_ARCHIVES, "MRPC")
ROBERTA_SIZES = ("base", "large")
GPT2_BPE = {  # and their sha256
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "dict.txt": "2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("what", choices=("glue", "roberta"))
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to put them")
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help=f"{', '.join(GLUE_TASKS)}; or {', '.join(ROBERTA_SIZES)}",
    )


def run(args: argparse.Namespace) -> None:
    """Fetch what is not yet complete in `args.folder`."""
    known = GLUE_TASKS if args.what == "glue" else ROBERTA_SIZES
    for name in args.names:
        if name not in known:
            raise UserError(f"{name}: what can be downloaded of {args.what} is {', '.join(known)}")
    if args.what == "glue":
        for task in args.names or GLUE_TASKS:
            download_task(task, args.folder / task)
    else:
        for size in args.names or ["large"]:
            download_roberta(size, args.folder / f"roberta.{size}")


def source(path: str) -> str:
    """Where a file is fetched from."""
    base = os.environ.get(MIRROR, "https://dl.fbaipublicfiles.com")
    if not base.startswith(("http://", "https://")):
        raise UserError(f"{MIRROR}={base}: it must begin with http:// or https://")
    return f"{base.rstrip('/')}/{path}"


@contextmanager
def removed_if_refused(archive: Path) -> Iterator[None]:
    """Keep no archive that was found wrong: it would be found wrong again."""
    try:
        yield
    except UserError:
        archive.unlink()
        raise


# --- GLUE


def download_task(task: str, output: Path) -> None:
    """Make the folder of a GLUE task.

    Raises:
        UserError: if it exists with other rows than were published, or they cannot be fetched.
    """
    if output.exists():
        if problem := rows_problem(task, output):
            raise UserError(f"{output}: {problem}; move it away to download {task}")
    elif task == "MRPC":
        with new_folder(output) as folder:
            assemble_mrpc(folder)
            if problem := rows_problem(task, folder):
                raise UserError(f"{source(MRPC_TRAIN)}: {problem}")
    else:
        name = f"{GLUE_ARCHIVES[task]}.zip"
        archive = output.with_name(name)
        fetch(source(f"glue/data/{name}"), archive)
        with removed_if_refused(archive), new_folder(output) as folder:
            unpack(archive, {f"{task}/{file}": folder / file for file in GLUE[task].files.values()})
            if problem := rows_problem(task, folder):
                raise UserError(f"{archive}: {problem}")
        archive.unlink()
    print(f"{output}: complete")


def rows_problem(task: str, folder: Path) -> str | None:
    """How an unpacked task differs from the published numbers of rows, if it does."""
    splits = task_tables(task, folder)
    for split, name in GLUE[task].files.items():
        if split not in splits:
            return f"{name} is missing"
        if told := unlike_published(task, split, sum(1 for _ in splits[split])):
            return told
    return None


def assemble_mrpc(folder: Path) -> None:
    """Write MRPC's three files as GLUE does, from SentEval's two and GLUE's list of dev pairs."""
    paths = [folder / name for name in ("pairs.txt", "test.txt", "dev_ids.tsv")]
    for url, path in zip((MRPC_TRAIN, MRPC_TEST, MRPC_DEV_IDS), paths, strict=True):
        fetch(source(url), path)
    pairs, test, ids = ([*byte_rows(path)] for path in paths)
    dev_ids = {tuple(row[:2]) for row in ids}
    header, pairs = pairs[:1], pairs[1:]
    write_rows(folder / "train.tsv", header + [p for p in pairs if tuple(p[1:3]) not in dev_ids])
    write_rows(folder / "dev.tsv", header + [p for p in pairs if tuple(p[1:3]) in dev_ids])
    # published without labels; the rows are numbered instead
    header = [[b"index", b"#1 ID", b"#2 ID", b"#1 String", b"#2 String"]]
    numbered = [[b"%d" % i, *row[1:]] for i, row in enumerate(test[1:])]
    write_rows(folder / "test.tsv", header + numbered)
    for path in paths:
        path.unlink()


def byte_rows(path: Path) -> Iterator[list[bytes]]:
    """The fields of each line of a table."""
    with open(path, "rb") as file:
        for line in file:
            yield line.rstrip().split(b"\t")


def write_rows(path: Path, rows: list[list[bytes]]) -> None:
    """Write a table."""
    path.write_bytes(b"".join(b"\t".join(row) + b"\n" for row in rows))


# --- RoBERTa


def download_roberta(size: str, output: Path) -> None:
    """Make the folder of a RoBERTa.

    Raises:
        UserError: if it exists but is not complete, or cannot be fetched.
    """
    if output.exists():
        check_roberta(output)
    else:
        archive = output.with_name(f"{output.name}.tar.gz")
        with new_folder(output) as folder:
            for name, digest in GPT2_BPE.items():
                fetch(source(f"fairseq/gpt2_bpe/{name}"), folder / name, digest)
            fetch(source(f"fairseq/models/{archive.name}"), archive)
            with removed_if_refused(archive):
                model = encoder_folder.MODEL
                unpack(archive, {f"{output.name}/{model}": folder / model})
        archive.unlink()
    print(f"{output}: complete")


def check_roberta(folder: Path) -> None:
    """Raise `UserError` if a file of a RoBERTa is missing or another one."""
    for name in (encoder_folder.MODEL, *GPT2_BPE):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; move {folder} away to download it")
        if name in GPT2_BPE and sha256(path) != GPT2_BPE[name]:
            raise UserError(f"{path} is not the published one; move {folder} away to download it")
