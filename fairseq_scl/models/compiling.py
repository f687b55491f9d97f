"""Compiling the layers of an encoder."""

import os
import shutil
from collections.abc import Iterable

from torch import nn

from fairseq_scl.errors import UserError


def compile_layers(layers: Iterable[nn.Module]) -> None:
    """Compile each layer at its first call, all of like form together, for batches of any shape.

    A GPU spends more time on starting the many small kernels of a short batch than on computing;
    compiled, they are few. Names of parameters stay as they are.

    Raises:
        UserError: without a C++ compiler, which torch.compile calls.
    """
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise UserError("--compile needs a C++ compiler: g++ or clang++, or the one that CXX names")
    for layer in layers:
        layer.compile(dynamic=True)
