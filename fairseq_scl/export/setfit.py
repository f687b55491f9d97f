"""A fine-tuned model as one of SetFit: a sentence-transformers body and scikit-learn's head.

The classification head's dense layer and tanh become the body's last module, so that the body's
embeddings are what the last projection sees; the projection becomes a logistic regression. A
refitted head sees the sentence vector at length 1, which the last module then makes.
"""

from pathlib import Path
from typing import Any

from fairseq_scl.export import transformers as export_transformers
from fairseq_scl.export.exportable import Exportable, write_json
from fairseq_scl.inference.refitted_head import RefittedHead

LIBRARY = "setfit"
USE = """\
from setfit import SetFitModel

model = SetFitModel.from_pretrained(".")
"""
ENCODER = {"": "Transformer", "1_Pooling": "Pooling"}  # folders of the body's first modules


def objection(source: Exportable) -> str | None:
    """Why a model cannot be exported; None if it can."""
    if source.classifier.sentences == 2:
        return "SetFit's models take one sentence, this one two"
    if len(source.classifier.classes) < 2:
        return "SetFit's models tell classes apart, this one is a regression"
    if isinstance(source.head, RefittedHead):
        return export_transformers.objection_to_encoder(source)
    return export_transformers.objection_to_parts(source)


def write(source: Exportable, folder: Path) -> None:
    """Write body, head and configuration."""
    import joblib

    write_encoder(source, folder)
    last = write_normalize if isinstance(source.head, RefittedHead) else write_dense
    body = ENCODER | last(source, folder)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(body.items())
    ]
    write_json(folder / "modules.json", modules)
    joblib.dump(logistic_regression(source), folder / "model_head.pkl")
    labels = source.classifier.classes
    write_json(folder / "config_setfit.json", {"normalize_embeddings": False, "labels": labels})


def write_encoder(source: Exportable, folder: Path) -> None:
    """Write the transformer and its pooling."""
    encoder = {
        "max_seq_length": source.max_length,
        "do_lower_case": False,
        "model_args": {"add_pooling_layer": False},  # one that nothing uses
    }
    write_json(folder / "sentence_bert_config.json", encoder)
    architecture = f"{source.family.classes}Model"
    config = export_transformers.describe_encoder(source) | {"architectures": [architecture]}
    write_json(folder / "config.json", config)
    weights = export_transformers.convert_encoder(source)
    export_transformers.save(weights, folder / "model.safetensors")
    export_transformers.write_tokenizer_config(source, folder)
    pooling = {
        "word_embedding_dimension": source.classifier.model.args.encoder_embed_dim,
        "pooling_mode_cls_token": source.pooling == "cls",
        "pooling_mode_mean_tokens": source.pooling == "mean",
    }
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", pooling)


def write_dense(source: Exportable, folder: Path) -> dict[str, str]:
    """Write the head's dense layer, with its tanh, as a module: its folder and kind."""
    dense, path = source.head.dense, folder / "2_Dense"
    config = {
        "in_features": dense.in_features,
        "out_features": dense.out_features,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    path.mkdir()
    write_json(path / "config.json", config)
    weights = {f"linear.{name}": tensor for name, tensor in dense.state_dict().items()}
    export_transformers.save(weights, path / "model.safetensors")
    return {path.name: "Dense"}


def write_normalize(source: Exportable, folder: Path) -> dict[str, str]:
    """Make the folder of a module that has nothing to write."""
    path = folder / "2_Normalize"
    path.mkdir()
    return {path.name: "Normalize"}


def logistic_regression(source: Exportable) -> Any:
    """scikit-learn's classifier that computes what the head's last projection and softmax do."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    projection = source.head.out_proj.state_dict()
    weight, bias = (projection[name].double().numpy() for name in ("weight", "bias"))
    regression = LogisticRegression()
    regression.classes_ = np.arange(len(weight))
    if len(weight) == 2:  # it has the logit of the second class against the first
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    regression.coef_, regression.intercept_ = weight, bias
    regression.n_features_in_ = weight.shape[1]
    return regression
