"""An LSTM over sentences of different lengths, packed by a collate function; the label: more than two small words."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import optsweep

generator = torch.Generator().manual_seed(0)
lengths = torch.randint(3, 12, (1000,), generator=generator).tolist()
sentences = [torch.randint(0, 20, (n,), generator=generator) for n in lengths]
samples = [{"words": words, "label": int((words < 5).sum() > 2)} for words in sentences]


def collate(samples):
    words = pack_sequence([sample["words"] for sample in samples], enforce_sorted=False)
    return {"words": words, "label": torch.tensor([sample["label"] for sample in samples])}


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.head = nn.Embedding(20, 16), nn.LSTM(16, 32), nn.Linear(32, 2)

    def forward(self, batch):
        words = batch["words"]
        _, (state, _) = self.lstm(words._replace(data=self.embed(words.data)))
        return self.head(state[-1])


task = optsweep.Task(Reader, samples, collate=collate, steps=200)
print(optsweep.compare(task, ["adamw + cosine", "muon + cosine"], name="sentences"))
