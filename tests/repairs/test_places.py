"""Where a run cannot be written, fairseq-train says so in one line before it builds a model."""

import os

import pytest
from conftest import train

PLACES = {
    "a file": "must be a folder",
    "a link to nowhere": "must be a folder",
    "below a file": "Not a directory",
    "": "must be a folder",
}


@pytest.fixture
def place(request, tmp_path):
    (tmp_path / "a file").write_text("kept")
    (tmp_path / "a link to nowhere").symlink_to(tmp_path / "gone")
    return {"below a file": str(tmp_path / "a file" / "run"), "": ""}.get(
        request.param, str(tmp_path / request.param)
    )


@pytest.mark.parametrize(("place", "told"), PLACES.items(), indirect=["place"])
@pytest.mark.parametrize("flag", ["--save-dir", "--tensorboard-logdir"])
def test_a_place_that_is_no_folder_is_told(recipe, tmp_path, place, told, flag):
    if not place and flag == "--tensorboard-logdir":
        pytest.skip("an empty one means none")
    with pytest.raises(SystemExit, match=f"error: {flag} .*{told}") as ended:
        train(recipe.flags(tmp_path / "run", flag, place))
    assert len(str(ended.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.pt"))
    assert (tmp_path / "a file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told(recipe, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(SystemExit, match="error: --save-dir .*Permission denied"):
        train(recipe.flags(tmp_path / "locked" / "run"))
