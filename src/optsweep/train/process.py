"""What is global in a process and a model may change: kept from its neighbours, and put back."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import torch

from optsweep.train.flags import Flags, flags, put

NONE: Flags = MappingProxyType({})

DEFAULT_DTYPE = torch.float32


@contextmanager
def isolated(
    device: torch.device | None = None, default_dtype: torch.dtype = DEFAULT_DTYPE, own: Flags = NONE
) -> Iterator[None]:
    """Put back what the block leaves changed: generators, torch's default dtype, threads, gradients, and its switches.

    Inside, the default dtype is `default_dtype` to begin with, whatever it was outside, and the switches in `own` are
    as they are there.
    """
    switches = flags()
    dtype, threads, enabled = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    cpu, python = torch.get_rng_state(), random.getstate()
    legacy = np.random.get_state()  # noqa: NPY002 - the global generator is what users' models draw from
    cuda = torch.cuda.get_rng_state(device) if device is not None and device.type == "cuda" else None
    mps = torch.mps.get_rng_state() if device is not None and device.type == "mps" else None
    torch.set_default_dtype(default_dtype)
    try:
        if own:
            put({**switches, **own})
        with torch.enable_grad():
            yield
    finally:
        put(switches)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(enabled)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_rng_state(cpu)
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device if device is not None else "cuda")
        if mps is not None:
            torch.mps.set_rng_state(mps)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes with so many threads inside, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """If wanted: deterministic algorithms or an error, no TF32, no choice of kernels by timing. Put back afterwards.

    cuBLAS reads its workspace from the environment when it is first used, so that variable stays set.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, tf32 = cudnn.benchmark, (matmul.allow_tf32, cudnn.allow_tf32)
    torch.use_deterministic_algorithms(True, warn_only=False)
    cudnn.benchmark, matmul.allow_tf32, cudnn.allow_tf32 = False, False, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
        cudnn.benchmark, (matmul.allow_tf32, cudnn.allow_tf32) = benchmark, tf32
