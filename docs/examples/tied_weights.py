"""A transformer whose embedding is its output layer too, on the bytes of a module of Python's library."""

import argparse
import inspect

import torch
from torch import nn

import optsweep

CONTEXT = 32
text = torch.tensor([min(ord(letter), 127) for letter in inspect.getsource(argparse)])
windows = text.unfold(0, CONTEXT + 1, CONTEXT)


class Transformer(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embed, self.places = nn.Embedding(128, width), nn.Parameter(torch.zeros(CONTEXT, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 128, bias=False)
        self.head.weight = self.embed.weight
        nn.init.normal_(self.embed.weight, std=0.1)

    def forward(self, letters):
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        return self.head(self.norm(self.block(self.embed(letters) + self.places, mask)))


task = optsweep.Task(Transformer, (windows[:, :-1], windows[:, 1:]), batch_size=16, steps=200, loss_unit="nats/byte")
print(optsweep.compare(task, ["adamw + cosine", "soap + cosine"], name="letters"))
