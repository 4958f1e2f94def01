"""Hugging Face's Trainer, with a small BERT from its config: are more than two of a sentence's words among five?"""

import torch
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

import optsweep
from optsweep.integrations.transformers import TrialTrainerCallback, optimizers

sentences = torch.randint(0, 20, (1500, 12), generator=torch.Generator().manual_seed(0))
samples = [{"input_ids": words, "labels": int((words < 5).sum() > 2)} for words in sentences]
sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
config = BertConfig(vocab_size=20, max_position_embeddings=12, **sizes)
settings = {"per_device_train_batch_size": 64, "per_device_eval_batch_size": 250}
settings |= {"output_dir": ".", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}


def accuracy(predicted):
    return {"accuracy": (predicted.predictions.argmax(-1) == predicted.label_ids).mean()}


data = {"train_dataset": samples[:1000], "eval_dataset": samples[1000:1250], "compute_metrics": accuracy}


def train(trial):
    model = BertForSequenceClassification(config)
    given = TrainingArguments(max_steps=trial.steps, seed=trial.seed, use_cpu=trial.device.type == "cpu", **settings)
    own = {"optimizers": optimizers(trial, model), "callbacks": [TrialTrainerCallback(trial, "accuracy")]}
    trainer = Trainer(model, given, **data, **own)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    with trial.evaluating(model):
        scores = trainer.evaluate(samples[1250:])
    trial.finish(test_loss=scores["eval_loss"], accuracy=scores["eval_accuracy"])


print(optsweep.compare(train, ["adamw + linear", "soap + linear"], name="trainer", trainer={"steps": 200}))
