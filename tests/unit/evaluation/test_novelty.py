import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from helpers.small_training import small
from imageclf.data.prepared import Pixels, Split, pixel_counts, stats_of
from imageclf.evaluation.calibration import REFERENCES, calibrate, fit_novelty
from imageclf.inference.novelty import statistics
from imageclf.network.classifier import build_classifier, to_pixels
from imageclf.training.loop import Training


def test_statistics_of_known_pictures() -> None:
    stripes = np.zeros((3, 8, 8, 1), np.uint8)
    stripes[0, ::2] = 255
    stripes[1, :, :4] = 255
    stripes[2] = 51
    found = statistics(to_pixels(torch.from_numpy(stripes)))
    expected = [[0.5, 0.5, 1, 0], [0.5, 0.5, 0, 0.25], [0.2, 0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("count", [2, 150, REFERENCES + 500])
def test_one_in_a_hundred_of_the_images_is_beyond_the_threshold(count: int) -> None:
    generator = torch.manual_seed(0)
    features, measured = torch.randn((count, 6), generator=generator), torch.rand((count, 4))
    novelty = fit_novelty(features, measured)
    assert novelty.references.shape == (min(count, REFERENCES), 10)
    fresh = novelty(torch.randn((4000, 6), generator=generator), torch.rand((4000, 4)))
    if count > 2:
        assert (fresh > 1).float().mean() == pytest.approx(0.01, abs=0.01)
    far = novelty(features, measured + 5)
    assert (far > 1).all()


def test_images_that_are_all_alike_make_any_other_one_new() -> None:
    novelty = fit_novelty(torch.ones((9, 3)), torch.full((9, 4), 0.5))
    same = novelty(torch.ones((1, 3)), torch.full((1, 4), 0.5))
    assert same.item() <= 1
    assert novelty(torch.ones((1, 3)), torch.full((1, 4), 0.6)).item() > 1


def test_noise_and_negatives_are_unlike_digits() -> None:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))  # they are sorted by the writers
    images, labels = images[order], labels[order]
    pixels = np.rint(images * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    train, val, test = (
        Split(pixels[part], labels[part])
        for part in (slice(0, 900), slice(900, 1300), slice(1300, None))
    )
    params = small(train__epochs=3, model__hidden=[32])
    classifier = build_classifier(params.model, stats_of(pixel_counts(train.images)), (8, 8, 1), 10)
    list(Training(params, classifier, train, val, classes=10).run())
    novelty = calibrate(classifier, val, None, "none").novelty

    def of(images: Pixels) -> np.ndarray:
        some = torch.from_numpy(images)
        with torch.no_grad():
            return novelty(classifier.features(some), statistics(to_pixels(some))).numpy()

    known = of(test.images)
    assert (known > 1).mean() < 0.06
    noise = np.random.default_rng(0).integers(0, 256, test.images.shape).astype(np.uint8)
    for unlike in (noise, 255 - test.images, test.images[:, ::-1] // 4):
        found = of(unlike)
        truth = np.repeat([0, 1], [len(known), len(found)])
        assert roc_auc_score(truth, np.concatenate([known, found])) > 0.9
