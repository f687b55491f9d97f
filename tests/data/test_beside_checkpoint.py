"""What `prepare` wrote down, read again."""

import json
import os
import shutil

import pytest
from mutations import mutations

from fairseq_scl.data.beside_checkpoint import read_prepared
from fairseq_scl.errors import UserError


def test_what_prepare_writes_is_read(data):
    prepared = read_prepared(data)
    assert prepared.max_length == 64
    assert prepared.classes == ["negative", "positive"]
    assert prepared.model_dump(exclude_unset=True) == json.loads(
        (data / "prepared.json").read_text()
    )


def test_whatever_else_stands_there_is_told_in_one_line(data, tmp_path):
    shutil.copy(data / "prepared.json", tmp_path)
    path = tmp_path / "prepared.json"
    for what, changed in mutations(json.loads(path.read_text())):
        path.write_text(json.dumps(changed))
        try:
            read_prepared(tmp_path)
        except UserError as error:
            assert str(error).startswith(f"fairseq-scl: error: {path}: "), what  # noqa: PT017
            assert len(str(error).splitlines()) == 1, what  # noqa: PT017


def test_no_file_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "prepared.json")
    with pytest.raises(UserError, match="prepared.json: not a regular file"):
        read_prepared(tmp_path)
