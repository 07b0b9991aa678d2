"""PyTorch modules, exported the ways people do it.

Run in the environment of `make test-models`, which has PyTorch; the server's has not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from saving import Saved, save
from torch import Tensor, nn

ROWS = 6


class Recurrent(nn.Module):
    """Text into a class, by a recurrent layer's last state."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], both: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 16)
        self.layer = kind(16, 12, batch_first=True, bidirectional=both)
        self.head = nn.Linear(24 if both else 12, 5)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.layer(self.words(ids))
        return self.head(states[:, -1])


class Masked(nn.Module):
    """A transformer encoder over ids and their mask, as BERT's exports take them."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(self.words(input_ids), src_key_padding_mask=attention_mask == 0)
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        return self.head((states * weights).sum(1) / weights.sum(1).clamp(min=1))


class Towers(nn.Module):
    """Two inputs that meet in a product."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Linear(8, 6), nn.Linear(5, 6)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (self.users(user) * self.items(item)).sum(-1)


class Detector(nn.Module):
    """Boxes in pixels beside scores, a row for each place."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Conv2d(3, 8, 3, 4, 1)
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.base(image).relu()
        boxes = self.boxes(seen).sigmoid().flatten(2).transpose(1, 2) * 640
        return boxes, self.scores(seen).softmax(1).flatten(2).transpose(1, 2)


class Pixels(nn.Module):
    """Bytes of an image, normalised inside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image.permute(0, 3, 1, 2).float() / 255).mean((2, 3))


class Residual(nn.Module):
    """Two convolutions with a short cut, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.two(self.norm(self.one(x)).relu())).relu()


class Attention(nn.Module):
    """Self-attention over a sequence of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        answer, _ = self.layer(x, x, x, need_weights=False)
        return answer


class Step(nn.Module):
    """One step with a key-value cache that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        present = torch.cat([past, self.kv(x)], 1)
        weights = (self.q(x) @ present.transpose(1, 2)).softmax(-1)
        return weights @ present, present


class Scaled(nn.Module):
    """One output for each row without a second dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum(-1).sqrt()


def ids(*shape: int) -> Tensor:
    """Return ids of words."""
    return torch.randint(1, 100, shape)


def image(size: int = 32) -> Tensor:
    """Return images."""
    return torch.rand(ROWS, 3, size, size)


def modules() -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
    """Return module and rows by name."""
    mask = torch.ones(ROWS, 9, dtype=torch.int64)
    mask[1, 5:] = 0
    dense = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))
    convolutions = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 15 * 15, 10)
    )
    depth = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.GroupNorm(2, 6), nn.SiLU())
    codes = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 3, 4, 2, 1))
    signal = nn.Sequential(nn.Conv1d(2, 4, 5), nn.GELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    norm = nn.Sequential(nn.Linear(10, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2))
    vector = torch.randn(ROWS, 10)
    return {
        "dense": (dense, {"x": vector}),
        "softmax_head": (nn.Sequential(dense, nn.Softmax(-1)), {"x": vector}),
        "layer_norm": (norm, {"x": vector}),
        "convolutions": (convolutions, {"image": image()}),
        "residual": (Residual(), {"x": image(16)}),
        "depthwise": (depth, {"image": image(12)}),
        "autoencoder": (codes, {"image": image(16)}),
        "signal": (signal, {"x": torch.randn(ROWS, 2, 50)}),
        "lstm": (Recurrent(nn.LSTM), {"ids": ids(ROWS, 7)}),
        "lstm_both_ways": (Recurrent(nn.LSTM, both=True), {"ids": ids(ROWS, 7)}),
        "gru": (Recurrent(nn.GRU), {"ids": ids(ROWS, 7)}),
        "encoder": (Masked(), {"input_ids": ids(ROWS, 9), "attention_mask": mask}),
        "attention": (Attention(), {"x": torch.randn(ROWS, 5, 16)}),
        "towers": (Towers(), {"user": torch.randn(ROWS, 8), "item": torch.randn(ROWS, 5)}),
        "detector": (Detector(), {"image": image()}),
        "pixels": (
            Pixels(),
            {"image": torch.randint(0, 256, (ROWS, 8, 8, 3), dtype=torch.uint8)},
        ),
        "cache_step": (
            Step(),
            {"x": torch.randn(ROWS, 1, 8), "past": torch.randn(ROWS, 4, 8)},
        ),
        "lengths": (Scaled(), {"x": vector}),
        "elementwise": (nn.Sequential(nn.Sigmoid()), {"x": vector}),
        "half": (nn.Linear(10, 4).half(), {"x": vector.half()}),
    }


def all_models(folder: Path) -> Iterator[Saved]:
    """Export every module by both exporters, and give what PyTorch answers."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    for name, (module, given) in modules().items():
        module.eval()
        for way in ("dynamo", "script"):
            path = folder / "exported.onnx"
            export(module, given, path, way)
            with torch.no_grad():
                answers = module(*given.values())
            answers = answers if isinstance(answers, tuple) else (answers,)
            asked = {f"y{number}": answer.numpy() for number, answer in enumerate(answers)}
            rows = {key: value.numpy() for key, value in given.items()}
            yield save(folder, f"torch_{way}_{name}", path, rows, asked)
            path.unlink()


def export(module: nn.Module, given: dict[str, Tensor], path: Path, way: str) -> None:
    """Write one file with a free first dimension.

    The older exporter is given `dynamic_axes` as a list, which lets it make up the names.
    """
    names = {"input_names": list(given), "output_names": ["y0", "y1"][: outputs(module)]}
    arguments = tuple(given.values())
    if way == "dynamo":
        # No list for modules that take their arguments by position alone.
        batch = tuple({0: torch.export.Dim.DYNAMIC} for _ in given)
        torch.onnx.export(
            module,
            arguments,
            path,
            dynamo=True,
            external_data=False,
            dynamic_shapes=batch,
            verbose=False,
            **names,
        )
        return
    axes = {name: [0] for name in (*names["input_names"], *names["output_names"])}
    torch.onnx.export(module, arguments, path, dynamo=False, dynamic_axes=axes, **names)


def outputs(module: nn.Module) -> int:
    """Return how many outputs a module has."""
    return 2 if isinstance(module, Detector | Step) else 1
