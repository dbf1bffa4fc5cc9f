"""data/prepared and models/pretrained -> data/features."""

import click
from rich.console import Console

from command import stage
from imageclf.files import UserError, atomic_folder
from imageclf.params import Params
from imageclf.project.folder import FEATURES, PREPARED, PRETRAINED
from imageclf.training.device import embeds_in_bf16, prepare_runtime
from imageclf.training.features import write_features, write_no_features


@stage
def main(params: Params) -> None:
    """Run a frozen backbone once on each image; nothing if it is trained, or images change."""
    if params.trains_on_features:
        embed(params)
        return
    with atomic_folder(FEATURES) as target:
        write_no_features(target)
    click.echo("no features: the training sees the images themselves")


def embed(params: Params) -> None:
    """Write the features of all images."""
    runtime = prepare_runtime(params)

    import torch

    from imageclf.data.prepared import SPLITS, load_split
    from imageclf.inference.backbone import features_in_bf16, features_of
    from imageclf.network.pretrained import begin_classifier, read_pretrained
    from imageclf.system.progress import image_progress

    pretrained = read_pretrained(PRETRAINED)
    if pretrained is None:
        raise UserError(f"{PRETRAINED} holds no weights: run `dvc repro`")
    # The features must not depend on the head.
    model = params.model.model_copy(update=pretrained.architecture | {"head": []})
    splits = {name: load_split(PREPARED, name) for name in SPLITS}
    shape, count = splits["train"].images.shape[1:], sum(map(len, splits.values()))
    classifier = begin_classifier(model, {}, PRETRAINED, shape, classes=1).to(runtime.device)
    classifier = classifier.to(memory_format=torch.channels_last).eval()
    bf16 = embeds_in_bf16(params.train.amp, runtime.device)
    precision = ", all but test in bf16" if bf16 else ""
    click.echo(f"{model.name} sees {count:,} images once, on {runtime.device}{precision}")
    with atomic_folder(FEATURES) as target:
        exact = features_of(classifier, shape, click.echo)
        learnt = features_in_bf16(classifier) if bf16 else exact
        with image_progress(Console(), count) as advance:
            for name, split in splits.items():
                features = exact if name == "test" else learnt
                write_features(features, runtime.device, split, target / f"{name}.npy", advance)
    click.echo(f"features: {FEATURES}")


if __name__ == "__main__":
    main()
