"""LAMB (You et al. 2019, arXiv 1904.00962): Adam with a trust ratio per tensor.

    u = m̂/(√v̂ + ε) + λθ,  direction = (‖θ‖ / ‖u‖)·u,  ratio 1 where either norm is 0

The ratio spans weight decay, so `decoupled` means inside it; there is no clamp on ‖θ‖, and bias is corrected. Some
libraries clamp ‖θ‖ at 10, or correct bias only on request. Under schedule-free ‖θ‖ is ‖z‖, and λθ is taken where
`decay_at` says.
"""

from __future__ import annotations

from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from optsweep.optim.adam import Adam
from optsweep.optim.layout import Layout


class LAMB(Adam):
    """Elementwise but for one norm per tensor; two buffers (one without momentum)."""

    decays_inside: ClassVar[bool] = True

    def rescale(self, direction: Tensor, params: Tensor, layout: Layout) -> Tensor:
        """(‖θ‖ / ‖u‖)·u, tensor by tensor."""
        for group in layout.groups:
            shape = (params.shape[0], group.count, prod(group.shape))
            steps = direction[:, group.offset : group.end].view(shape)
            weights = params[:, group.offset : group.end].view(shape)
            steps.mul_(trust_ratio(weights, steps))
        return direction


def trust_ratio(weights: Tensor, steps: Tensor) -> Tensor:
    """‖θ‖ / ‖u‖ along the last dimension, which stays; 1 where either is 0."""
    weight_norm = torch.linalg.vector_norm(weights, dim=-1, keepdim=True)
    step_norm = torch.linalg.vector_norm(steps, dim=-1, keepdim=True)
    return torch.where((weight_norm > 0) & (step_norm > 0), weight_norm / step_norm, 1.0)
