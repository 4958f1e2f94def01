"""A Hugging Face model by pieces, a small BERT from its config: are more than two of a sentence's words among five?"""

import torch
from transformers import BertConfig, BertForSequenceClassification

import optsweep

sentences = torch.randint(0, 20, (1500, 12), generator=torch.Generator().manual_seed(0))
data = {"input_ids": sentences, "labels": ((sentences < 5).sum(1) > 2).long()}
sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
config = BertConfig(vocab_size=20, max_position_embeddings=12, **sizes)


def model():
    return BertForSequenceClassification(config)


task = optsweep.Task(model, data, loss=lambda model, batch: model(**batch).loss)
print(optsweep.compare(task, ["adamw + linear", "soap + linear"], name="hugging face model"))
