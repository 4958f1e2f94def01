"""A model of Hugging Face in its Trainer: put yours in their places, one by one; `optsweep check task=mine` after each.

The model is a small BERT from a config, with random weights; BertForSequenceClassification.from_pretrained(…) starts
all trials from the same ones. The question put to it: are more than two of a sentence's words among five?
"""

from typing import Any

import optsweep
import torch
from optsweep.integrations.transformers import TrialTrainerCallback, optimizers
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

WORDS = torch.randint(0, 20, (1500, 12), generator=torch.Generator().manual_seed(0))
SAMPLES = [{"input_ids": words, "labels": int((words < 5).sum() > 2)} for words in WORDS]
TRAIN, VALIDATION, TEST = SAMPLES[:1000], SAMPLES[1000:1250], SAMPLES[1250:]


def accuracy(predicted: Any) -> dict[str, float]:
    """Share of right answers."""
    return {"accuracy": (predicted.predictions.argmax(-1) == predicted.label_ids).mean()}


def train(trial: optsweep.RunningTrial, width: int = 32) -> None:
    """Train one trial to its end. What follows `trial` are keys of the command line: task.width=32,64."""
    sizes = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 2 * width}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=12, **sizes))
    settings = TrainingArguments(
        max_steps=trial.steps,  # the budget
        seed=trial.seed,
        per_device_train_batch_size=trial.batch_size,
        per_device_eval_batch_size=250,
        use_cpu=trial.device.type == "cpu",
        output_dir=".",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        settings,
        train_dataset=TRAIN,
        eval_dataset=VALIDATION,
        compute_metrics=accuracy,
        optimizers=optimizers(trial, model),  # with learning rate, schedule, weight decay and averaging inside
        callbacks=[TrialTrainerCallback(trial, "accuracy")],  # evaluates where the trial wants it, and reports
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    with trial.evaluating(model):  # the weights that one would ship
        scores = trainer.evaluate(TEST)
    trial.finish(test_loss=scores["eval_loss"], accuracy=scores["eval_accuracy"])  # on which the verdict rests
