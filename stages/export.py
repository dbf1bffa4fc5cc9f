"""models/classifier and its calibration -> models/exported."""

import click

from command import stage
from imageclf.files import atomic_folder, write_json
from imageclf.params import Params
from imageclf.project.folder import CALIBRATION, CLASSIFIER, EXPORTED, PREPARED
from imageclf.training.device import prepare_runtime


@stage
def main(params: Params) -> None:
    """Write portable files, and check on test images that they agree with the model."""
    prepare_runtime(params)

    from imageclf.data.prepared import load_split
    from imageclf.inference.calibration import read_calibration
    from imageclf.inference.export import export, parity
    from imageclf.network.classifier import load_classifier

    classifier, description = load_classifier(CLASSIFIER)
    calibration = read_calibration(CALIBRATION)
    classifier.temperature, novelty = calibration.temperature, calibration.novelty
    images = load_split(PREPARED, "test").images
    with atomic_folder(EXPORTED) as target:
        export(classifier, novelty, description, target)
        proof = parity(classifier, novelty, images, target, params.export.tolerance)
        write_json(target / "parity.json", proof)
    for name, difference in proof["largest_difference"].items():
        size = (EXPORTED / name).stat().st_size / 1e6
        click.echo(
            f"{EXPORTED / name}: {size:.1f} MB, differs from the model by {difference:.1g} at most"
        )


if __name__ == "__main__":
    main()
