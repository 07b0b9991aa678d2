"""The whole way with one part of the images held out: training, exporting, quantising, asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from examples.images import networks, quantised
from examples.images.data import CALIBRATION, Array, Split
from examples.images.measuring import INPUT, OUTPUT, right_answers
from examples.images.serving import inferd
from examples.images.training import outputs, prune, train

LOADER = f"{Path(networks.__file__)}:load"
TEACHER_EPOCHS, STUDENT_EPOCHS, PRUNED_EPOCHS, QUANTISED_EPOCHS = 14, 30, 20, 5
STUDENT_RATE = 5e-3
PRUNED = 0.4
"""Share of channels that pruning takes out of every layer."""
CHOSEN = "pruned INT8"
AWARE = "pruned INT8, trained in INT8"
ROUNDING = 0.5
"""That logits may be off where PyTorch and ONNX Runtime round a half to other sides."""
QUANTISED: Mapping[str, tuple[str, ...]] = {
    "INT8": ("--precision", "int8"),
    "INT8, uint8 activations": ("--precision", "int8", "--activations", "uint8"),
    "FP16": ("--precision", "fp16"),
}


@dataclass(frozen=True, slots=True)
class Walk:
    """The whole way with one part of the images held out: what came of it, by names of models."""

    files: Mapping[str, Path]
    parameters: Mapping[str, int]
    right: Mapping[str, Array]
    """bool [held out]: which images were classified as labelled."""


def walk(folder: Path, split: Split) -> Walk:
    """Train, convert and try every model with one part of the images held out."""
    print(f"{folder.name}: {len(split.labels)} images to train with", flush=True)
    folder.mkdir(parents=True)
    write_rows(folder, split)
    parameters, files = {}, {}
    modules = trained(split)
    for name, module in modules.items():
        torch.save(module, folder / f"{name}.pt")
        made = converted(folder, name)
        files |= made
        parameters |= dict.fromkeys(made, networks.parameters(module))
    files[AWARE] = trained_quantised(folder, modules["pruned"], split)
    parameters[AWARE] = parameters["pruned"]
    right = right_answers(files, split.heldout_images, split.heldout_labels)
    return Walk(files, parameters, right)


def write_rows(folder: Path, split: Split) -> None:
    """Write what INT8 is calibrated with: images, and noise of the same range beside them."""
    images = split.images[:CALIBRATION]
    noise = np.random.default_rng(0).random(images.shape, dtype=np.float32)
    np.savez(folder / "calibration.npz", **{INPUT: images})  # type: ignore[arg-type]
    np.savez(folder / "random.npz", **{INPUT: noise})  # type: ignore[arg-type]
    np.savez(folder / "heldout.npz", **{INPUT: split.heldout_images})  # type: ignore[arg-type]


def trained(split: Split) -> dict[str, nn.Module]:
    """Train the teacher, its student with and without its help, and prune the student."""
    images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    torch.manual_seed(0)
    teacher, student, alone = networks.teacher(), networks.student(), networks.student()
    alone.load_state_dict(student.state_dict())
    print("training the teacher", flush=True)
    train(teacher, images, labels, TEACHER_EPOCHS)
    print("training the student, alone and by the teacher", flush=True)
    soft = outputs(teacher, images)
    train(alone, images, labels, STUDENT_EPOCHS, rate=STUDENT_RATE)
    train(student, images, labels, STUDENT_EPOCHS, soft, STUDENT_RATE)
    print("pruning and training on", flush=True)
    pruned = networks.student()
    pruned.load_state_dict(student.state_dict())
    prune(pruned, PRUNED)
    train(pruned, images, labels, PRUNED_EPOCHS, soft)
    return {"teacher": teacher, "student alone": alone, "student": student, "pruned": pruned}


def converted(folder: Path, name: str) -> dict[str, Path]:
    """Export a network and quantise it; return the files by the name of each model."""
    whole = folder / file_name(name)
    files = {name: whole}
    flags = ("--data", folder / "heldout.npz", "--output", OUTPUT)
    inferd("export", folder / f"{name}.pt", whole, "--loader", LOADER, *flags)
    if name == "student alone":
        return files
    for kind, how in QUANTISED.items():
        made = files[f"{name} {kind}"] = folder / file_name(f"{name} {kind}")
        golden = ("--golden", folder / "golden.npz") if f"{name} {kind}" == CHOSEN else ()
        inferd("quantize", whole, made, "--calibration", folder / "calibration.npz", *how, *golden)
    noisy = files[f"{name} INT8, calibrated with noise"] = folder / file_name(f"{name} noise")
    inferd("quantize", whole, noisy, "--calibration", folder / "random.npz")
    return files


def trained_quantised(folder: Path, module: nn.Module, split: Split) -> Path:
    """Train a network on in INT8, and export it; return its file."""
    print("training on in INT8", flush=True)
    images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    made = quantised.train_quantised(module, images, labels, QUANTISED_EPOCHS)
    checkpoint, target = folder / "quantised.pt2", folder / file_name(AWARE)
    quantised.save(made, images, checkpoint)
    loader = ("--loader", f"{Path(quantised.__file__)}:load", "--tolerance", str(ROUNDING))
    data = ("--data", folder / "heldout.npz", "--output", OUTPUT)
    inferd("export", checkpoint, target, *loader, *data)
    return target


def file_name(name: str) -> str:
    """Return what the file of a model is called: "pruned INT8" is pruned-int8.onnx."""
    return f"{name.lower().replace(',', '').replace(' ', '-')}.onnx"
