"""fairseq-scl: supervised contrastive fine-tuning as a fairseq plugin.

fairseq itself is an extra (`fairseq-scl[fairseq]`), so that a fairseq which is
already installed is never overwritten.
"""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="fairseq-scl",
    version="0.2.0",
    description="Supervised contrastive learning for fine-tuning RoBERTa with fairseq",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["fairseq_scl", "fairseq_scl.*"]),
    package_data={
        "fairseq_scl": ["configs/*.yaml", "configs/*/*.yaml", "sample_data/*.tsv", "py.typed"]
    },
    install_requires=[
        "torch>=2.6",
        "datasets>=4",  # data sets of the hub, without their code
        "huggingface_hub",  # encoders of the hub
        "numpy",
        "omegaconf>=2.3",
        "jinja2",  # pandas' LaTeX
        "pandas>=2.1",  # results as a table
        "pyarrow",  # parquet
        "pydantic>=2",  # the schema of every file that is read
        "scikit-learn",  # t-SNE, nearest neighbours
        "scipy>=1.15",  # rank correlation, paired tests (exact with ties since 1.15)
        "seaborn",  # pictures
        "statsmodels",  # Holm's correction
        "tiktoken",  # GPT-2's BPE, quicker than tokenizers
        "tokenizers>=0.20",  # tokenizer.json
        "sentencepiece",  # XLM-R, CamemBERT
        "safetensors",  # weights of Hugging Face models
        "tabulate",  # pandas' Markdown
        "tensorboard",
        "tqdm",
    ],
    extras_require={
        "fairseq": [
            "fairseq-fixed==0.12.3.1",
            "hydra-joblib-launcher",  # a study's runs side by side
            "hydra-submitit-launcher",  # and on SLURM
        ],
        "onnx": ["onnx", "onnxruntime", "onnxscript"],  # export --format onnx, and predict
        "docs": ["mkdocs-material", "mkdocstrings[python]"],
        "test": [
            "build",
            "coverage",
            "hypothesis",
            "import-linter",  # the order of the rooms
            "mypy",
            "onnx",
            "onnxruntime",
            "onnxscript",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",  # on all cores
            "pytorch-metric-learning",
            "ruff",
            "selenium",  # a browser, for TensorBoard
            "transformers",
        ],
    },
    entry_points={"console_scripts": ["fairseq-scl=fairseq_scl.cli:main"]},
)
