"""The engine on a machine that has torch, numpy, pandas and pydantic, and nothing else."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.params import changed

ENGINE = ("torch", "numpy", "pandas", "pydantic")
SCRIPT = '''
import json
import sys
from pathlib import Path

given = json.load(sys.stdin)
refused = set(given["refused"])


class Absent:
    """Finds what the finders before it find, but for the packages that are refused."""

    finders = list(sys.meta_path)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            return None
        specs = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in specs if spec), None)


sys.meta_path[:] = [Absent()]

import numpy
import torch

from imageclf.training.checkpoint import Checkpoints
from imageclf.network.classifier import build_classifier
from imageclf.data.prepared import Split
from imageclf.params import check_params
from imageclf.training.loop import Training

torch.set_num_threads(1)
params = check_params(given["params"], "test")
images = numpy.random.default_rng(0).integers(0, 256, (64, 28, 28, 1)).astype(numpy.uint8)
split = Split(images, numpy.arange(64) % 4)


def training():
    stats = {"mean": [images.mean() / 255], "std": [images.std() / 255]}
    classifier = build_classifier(params.model, stats, (28, 28, 1), 4)
    return Training(params, classifier, split, split, 4)


first, second = training(), training()
results = list(first.run())
checkpoints = Checkpoints("f" * 64, minutes=5, root=Path(given["folder"]))
checkpoints.save(first.state())
second.restore(checkpoints.load())
assert second.history == results
assert all(
    torch.equal(ours, theirs)
    for ours, theirs in zip(
        first.classifier.state_dict().values(), second.classifier.state_dict().values()
    )
)
# Importing torch's compiler takes over a second.
refused.add("torch._dynamo")
print(json.dumps({"epochs": len(results), "present": sorted(refused & set(sys.modules))}))
'''


def needed(names: tuple[str, ...]) -> set[str]:
    """The distributions that these need on this machine, themselves included."""
    found: set[str] = set()
    waiting = {canonicalize_name(name) for name in names}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= set(requirements(name)) - found
    return found


def requirements(name: str) -> Iterator[str]:
    for line in requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def test_training_needs_torch_numpy_pandas_and_pydantic_only(tmp_path: Path) -> None:
    allowed = needed(ENGINE) | {"imageclf"}
    refused = {
        module
        for module, distributions in packages_distributions().items()
        if not allowed & {canonicalize_name(name) for name in distributions}
    }
    assert {"mlflow", "dvc", "click", "rich", "ruamel", "matplotlib", "PIL"} <= refused
    assert {"safetensors", "onnx", "pyarrow", "sklearn", "requests", "torchvision"} <= refused
    params = changed(model__name="cnn", model__width=8, model__depth=1, train__epochs=1)
    given = {"refused": sorted(refused), "params": params, "folder": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"epochs": 1, "present": []}
