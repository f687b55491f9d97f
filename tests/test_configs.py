"""The configurations of configs/: every combination composes, none is half-filled."""

from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fairseq_scl.data.protocols import split

CONFIGS = ROOT / "configs"
ENCODERS, DATA, PROTOCOLS = (
    sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    for group in ("encoder", "data", "protocol")
)
GLUE_ROWS = {  # of train and of the validation set, as published
    "SST-2": (67349, 872), "CoLA": (8551, 1043), "MRPC": (3668, 408), "RTE": (2490, 277),
    "QNLI": (104743, 5463), "MNLI": (392702, 9815),
}  # fmt: skip


def composed(*overrides: str) -> dict:
    """The configuration that fairseq would get."""
    from fairseq.dataclass.initialize import hydra_init

    hydra_init("finetune")
    with initialize_config_dir(str(CONFIGS), version_base="1.1"):
        cfg = compose("finetune", overrides=list(overrides), return_hydra_config=True)
    OmegaConf.set_struct(cfg, False)
    cfg.hydra.runtime.cwd = str(ROOT)
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(cfg)
    del cfg["hydra"]
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_combination_is_complete(encoder):
    pairs = {(data, "full" if data in GLUE_ROWS else "few_shot_20") for data in DATA}
    pairs |= {("SST-2", protocol) for protocol in PROTOCOLS}
    for data, protocol in sorted(pairs):
        cfg = composed(
            f"encoder={encoder}", f"data={data}", f"protocol={protocol}", "data_dir=/data",
            "checkpoint.finetune_from_model=/model.pt", "++task.noise_temperature=0.5",
        )  # fmt: skip
        assert cfg["task"]["data"] == f"/data/{data}"
        updates = cfg["optimization"]["max_update"]
        assert cfg["lr_scheduler"]["total_num_update"] == updates
        assert abs(cfg["lr_scheduler"]["warmup_updates"] - 0.06 * updates) < 1  # rounded
        assert updates / cfg["dataset"]["validate_interval_updates"] > 1
        sections = ("common", "task", "criterion", "dataset", "optimization", "checkpoint", "model")
        missing = [(s, k) for s in sections for k, v in cfg[s].items() if v == "???"]
        assert not missing


@pytest.mark.parametrize("data", GLUE_ROWS)
@pytest.mark.parametrize("batch_size", [16, 64, 256])
def test_full_data_is_ten_epochs(data, batch_size):
    import numpy as np

    rows, valid_rows = GLUE_ROWS[data]
    labels = {"train": np.arange(rows) % 2, "valid": np.arange(valid_rows) % 2}
    trained = len(split("full", "train", labels.__getitem__).rows)
    cfg = composed(
        f"data={data}", "protocol=batch_size", f"dataset.batch_size={batch_size}", "data_dir=.",
        "checkpoint.finetune_from_model=m",
    )  # fmt: skip
    assert abs(cfg["optimization"]["max_update"] - 10 * trained / batch_size) <= 1


def test_both_losses_get_the_same_recipe():
    ce, scl = (
        composed(f"criterion.scl_weight={w}", "data_dir=.", "checkpoint.finetune_from_model=m")
        for w in (0, 0.9)
    )
    ce["criterion"].pop("scl_weight"), scl["criterion"].pop("scl_weight")
    assert ce == scl


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS))
)
def test_the_header_is_the_command_that_runs_it(path: Path):
    if path.name == "keys.yaml":
        pytest.skip("not run by itself")
    header = path.read_text().split("\n\n")[0]
    assert "fairseq-hydra-train --config-dir configs --config-name finetune" in header
    group = path.parent.name
    if group != "configs":
        assert f"{group}={path.stem}" in header
