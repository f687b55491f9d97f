"""Hugging Face's Trainer on SST-2, for scripts/benchmark.py; prints a line for every update."""

import argparse
import csv

from benchmark import SHAPES, has_gpu
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    RobertaConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    logging,
)


class Lines(TrainerCallback):
    """Print every update."""

    def on_step_end(self, args, state, control, **kwargs):
        """Called by the trainer."""
        print("update", state.global_step, flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("updates", type=int)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--group-by-length", action="store_true")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    if args.shape == "minilm":
        model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)
    else:
        layers, width, *_ = SHAPES[args.shape]
        model = AutoModelForSequenceClassification.from_config(
            RobertaConfig(
                vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers,
                num_attention_heads=width // 64, intermediate_size=4 * width,
                max_position_embeddings=514,
                layer_norm_eps=1e-5, type_vocab_size=1, pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
    gpu = has_gpu()
    with open(args.rows, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    encoded = tokenizer([row["sentence"] for row in rows], truncation=True)["input_ids"]
    data = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(row["label"])}
        for ids, row in zip(encoded, rows, strict=True)
    ]
    grouped = {"train_sampling_strategy": "group_by_length"} if args.group_by_length else {}
    Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=".", max_steps=args.updates, per_device_train_batch_size=16,
            learning_rate=1e-5, lr_scheduler_type="constant", weight_decay=0.1, adam_beta2=0.98,
            adam_epsilon=1e-6, max_grad_norm=0, save_strategy="no", report_to="none",
            use_cpu=not gpu, bf16=gpu, logging_strategy="no", seed=1, **grouped,
        ),
        train_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[Lines()],
    ).train()  # fmt: skip


if __name__ == "__main__":
    main()
