"""Hugging Face's Trainer, with a small BERT from its config: are more than two of a sentence's words among five?"""

import optsweep
import torch
from optsweep.integrations.transformers import TrialCallback, optimizers
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

sentences = torch.randint(0, 20, (1500, 12), generator=torch.Generator().manual_seed(0))
samples = [{"input_ids": words, "labels": int((words < 5).sum() > 2)} for words in sentences]
config = BertConfig(
    vocab_size=20,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=12,
)


def accuracy(predicted):
    return {"accuracy": (predicted.predictions.argmax(-1) == predicted.label_ids).mean()}


def train(trial):
    model = BertForSequenceClassification(config)
    settings = TrainingArguments(
        max_steps=trial.steps,
        per_device_train_batch_size=trial.batch_size,
        per_device_eval_batch_size=250,
        seed=trial.seed,
        use_cpu=trial.device.type == "cpu",
        output_dir=".",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        settings,
        train_dataset=samples[:1000],
        eval_dataset=samples[1000:1250],
        compute_metrics=accuracy,
        optimizers=optimizers(trial, model),
        callbacks=[TrialCallback(trial, accuracy="eval_accuracy")],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    with trial.evaluating(model):
        scores = trainer.evaluate(samples[1250:], metric_key_prefix="test")
    trial.finish(test_loss=scores["test_loss"], accuracy=scores["test_accuracy"])


loop = optsweep.Loop(train, steps=200, batch_size=32)
print(optsweep.compare(loop, ["adamw + linear + warmup=linear", "soap + linear + warmup=linear"], name="hugging face trainer"))
