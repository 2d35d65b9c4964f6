"""The float figures of models/dit.py, with anchors: `python -m models.train.scores [--pictures N]`.

Frechet distances in the judge's features to the first N test pictures; other test pictures and
plain noise in the same numbers are the anchors. Writes them into the weights' JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from calib.metrics.images import Gaussian, frechet
from models import dit, samplers
from models.judge import judge
from models.train.pictures import pictures, scaled
from models.weights import trained

SEED = 11


def scores(n: int) -> dict:
    """n at most 5000. Accuracies are shares of pictures, with the judge's own on real pictures."""
    images, classes = pictures("t10k")
    real = scaled(images[: 2 * n]).numpy()
    features, found = judge(real[:n])
    start = time.process_time()
    drawn, labels = dit.sample(samplers.of_module(dit.load()), n, SEED)
    seconds = time.process_time() - start
    figures = {"pictures": n, "steps": dit.STEPS, "guidance": dit.GUIDANCE, "seed": SEED}
    figures |= {"sampling_cpu_seconds": round(seconds)}
    figures |= {"accuracy_real": round(float((found == classes[:n].numpy()).mean()), 4)}
    sets = {"dit": drawn, "noise": samplers.noise(n, (1, 28, 28), SEED), "real": real[n:]}
    for name, these in sets.items():
        theirs, judged = judge(these)
        figures[f"frechet_{name}"] = round(frechet(_gaussian(theirs), _gaussian(features)), 3)
        if name != "real":
            figures[f"accuracy_{name}"] = round(float(np.mean(judged == labels)), 4)
    return figures


def _gaussian(features: np.ndarray) -> Gaussian:
    found = Gaussian()
    found.add(features)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pictures", type=int, default=1000)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    file = trained.FOLDER / "dit.json"
    facts = json.loads(file.read_text()) | {"scores": scores(options.pictures)}
    file.write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts["scores"]))


if __name__ == "__main__":
    main()
