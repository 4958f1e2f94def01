"""A decoder-only transformer in the manner of GPT-2, without what would make comparisons of optimizers noisy.

No dropout, no biases: the gradient of an attention key's bias is nothing but rounding noise, which sign-based rules
would amplify. Query, key, value and output are separate matrices of one shape, so matrix rules see them as one batch.
"""

from __future__ import annotations

import math
import warnings

import torch.nn.functional as F
from torch import Tensor, nn

from optsweep.errors import UserError

# On a CPU, vmap runs fused attention lane by lane and says so; measured, that is no slower than attention spelled out.
warnings.filterwarnings("ignore", "There is a performance drop because we have not yet implemented", UserWarning)

TOKEN_STD, POSITION_STD = 0.2, 0.05
"""Standard deviations of the embeddings, measured on charlm (400 steps of AdamW, the better of LR 3e-3 and 1e-2):
validation loss 2.00 with these, 2.00 with 1 and 0.1 (but 2.24 against 2.12 at the lower LR), 2.20 with 0.02."""

HEAD_STD = 0.02
"""Small, so that the loss starts at chance; a tied matrix has it too, as in GPT-2."""


class Transformer(nn.Module):
    """Tokens `[B, T]` (int64, T ≤ context) → logits `[B, T, vocabulary]`.

    Pre-norm blocks, learned positions, GELU MLP of four times the width. Hidden matrices start with standard deviation
    1/√fan-in (GPT-2's 0.02 is that of a width of 2500), those that write to the residual stream with
    1/√(2 · layers) of it, as GPT-2 scales them (Radford 2019, section 2.3).

    With `mup_base` the width is scaled as µP does (Yang et al. 2022, arXiv 2203.03466, table 8, for Adam), and at a
    width of `mup_base` it is the standard parametrisation. µP's LR ∝ 1/width of a matrix is had by a factor base/width
    on its output, beside a start as much larger: what is stored takes Adam's steps of one size at every width.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        layers: int,
        heads: int,
        context: int,
        tied: bool = False,
        mup_base: int | None = None,
    ) -> None:
        super().__init__()
        factor = 1.0 if mup_base is None else mup_base / width
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, factor) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = Matrix(width, vocabulary, factor)
        nn.init.normal_(self.tokens.weight, std=HEAD_STD if tied else TOKEN_STD)
        nn.init.normal_(self.positions.weight, std=HEAD_STD if tied else POSITION_STD)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        for block in self.blocks:
            assert isinstance(block, Block)
            for name, linear in block.named_children():
                if isinstance(linear, nn.Linear):
                    residual = name in ("output", "down")
                    scale = 1 / math.sqrt(2 * layers) if residual else 1.0
                    nn.init.normal_(linear.weight, std=scale / math.sqrt(linear.in_features) / factor)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        hidden = self.tokens(tokens) + self.positions.weight[: tokens.shape[-1]]
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


class Matrix(nn.Linear):
    """A linear map without bias, whose output has a fixed factor."""

    def __init__(self, fan_in: int, fan_out: int, factor: float = 1.0) -> None:
        super().__init__(fan_in, fan_out, bias=False)
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        """`[…, fan_in]` → `[…, fan_out]`."""
        outputs = super().forward(inputs)
        return outputs if self.factor == 1.0 else outputs * self.factor


class Block(nn.Module):
    """Causal attention and an MLP, each added to its input `[B, T, width]`; `factor` is µP's base/width."""

    def __init__(self, width: int, heads: int, factor: float = 1.0) -> None:
        super().__init__()
        self.heads = heads
        # torch's own 1/√d of a head's size d; in µP ∝ 1/d, and the same at the base.
        self.attention_scale = None if factor == 1.0 else math.sqrt(factor * heads / width)
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query = Matrix(width, width, factor)
        self.key = Matrix(width, width, factor)
        self.value = Matrix(width, width, factor)
        self.output = Matrix(width, width, factor)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.up = Matrix(width, 4 * width, factor)
        self.down = Matrix(4 * width, width, factor)

    def forward(self, hidden: Tensor) -> Tensor:
        """The block's output, of the same shape."""
        normed = self.attention_norm(hidden)
        query, key, value = (
            matrix(normed).unflatten(-1, (self.heads, -1)).transpose(-3, -2)
            for matrix in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=self.attention_scale)
        hidden = hidden + self.output(attended.transpose(-3, -2).flatten(-2))
        out: Tensor = hidden + self.down(F.gelu(self.up(self.mlp_norm(hidden))))
        return out


def check_heads(width: int, heads: int) -> None:
    """Raise unless the heads divide the width."""
    if width % heads:
        raise UserError(f"task.width: {width} is not divisible by task.heads={heads}; give a multiple of it")
