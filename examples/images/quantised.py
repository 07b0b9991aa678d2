"""Training that knows of the rounding of INT8, by torchao's PT2E."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e import allow_exported_model_train_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

from examples.images.training import train

ROWS = 2
"""Images to trace a network with: with one its number would be taken for fixed."""


def train_quantised(module: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """Return a trained network in INT8, which went on training with its rounding in the way.

    Source: B. Jacob et al., 1712.05877. Weights are symmetric with a scale for each channel,
    activations unsigned. The arguments are those of `train`; the module stays as it was.
    """
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    prepared = prepare_qat_pt2e(traced(module.train(), images).module(), quantizer)
    allow_exported_model_train_eval(prepared)
    train(prepared, images, labels, epochs)
    module.eval()
    made: nn.Module = convert_pt2e(prepared)
    return made


def traced(module: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """Return a module as a graph, the number of images free."""
    shapes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(module, (images[:ROWS],), dynamic_shapes=shapes)


def save(module: nn.Module, images: Tensor, target: Path) -> None:
    """Write what `load` reads: a graph, which torch.save cannot."""
    torch.export.save(traced(module, images), target)


def load(checkpoint: Path) -> nn.Module:
    """Return the network of a checkpoint, for `inferd export`."""
    module = torch.export.load(checkpoint).module()
    allow_exported_model_train_eval(module)
    return module
