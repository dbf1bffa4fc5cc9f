import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.classifiers import STATS, description
from helpers.images import learnable_split
from helpers.params import make_params
from helpers.reports import NAMES, make_inside, of_noise, report_of, with_mistakes
from imageclf.evaluation.cost import cost
from imageclf.evaluation.gallery import Rows
from imageclf.evaluation.report import write_report, write_tables
from imageclf.evaluation.report_page import Inside, Report, report_page
from imageclf.evaluation.verdict import Evidence
from imageclf.files import read_json
from imageclf.network.classifier import build_classifier, save_classifier
from imageclf.project.folder import WARNINGS


@pytest.fixture(scope="module")
def inside() -> Inside:
    return make_inside()


@pytest.fixture
def report(inside: Inside) -> Report:
    test = learnable_split(40, seed=0)
    return report_of(test, with_mistakes(test.labels, [1, 5, 6], 4), inside, NAMES)


def test_the_report_is_one_page_with_tables_and_the_pictures_of_dvc(
    tmp_path: Path, report: Report
) -> None:
    figures = report.evidence.figures | {"accuracy_low": 0.1}
    evidence = Evidence(**vars(report.evidence) | {"figures": figures})
    write_report(tmp_path, Report(**vars(report) | {"evidence": evidence}))
    pictures = {"loss.png", "mistakes.png", "first_batch.png", "filters.png", "weights.png"}
    tables = {"per_class.csv", "predictions.csv", "warnings.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"index.html"} | pictures | tables
    assert all((tmp_path / name).stat().st_size > 1000 for name in pictures)
    page = (tmp_path / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)', page)
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "http" not in page
    assert "92.5\N{NBSP}% of the 40 test images are right" in page
    assert "<b>92.50 %</b>right" in page
    assert "&lt;b&gt;" in page
    (warned,) = read_json(tmp_path / WARNINGS.name)
    assert "not clearly better" in warned
    assert '<p class="warning">the model is not clearly better' in page
    predictions = pd.read_csv(tmp_path / "predictions.csv")
    assert predictions["name"].tolist() == report.rows.names
    assert pd.read_csv(tmp_path / "per_class.csv")["support"].tolist() == [10] * 4


def test_each_confusion_is_listed_and_opened_by_its_cell(report: Report) -> None:
    page = report_page(report, [])
    assert "dog taken for cat: 2 of 10" in page
    cells = re.findall(r'popovertarget="([^"]*)"[^>]*>(\d+)</button>', page)
    labels, guessed = report.predictions.labels, report.predictions.predicted
    expected = {
        f"c{a}-{b}": f"{((labels == a) & (guessed == b)).sum()}"
        for a, b in zip(labels[[1, 6]], guessed[[1, 6]], strict=True)
    }
    assert dict(cells) == expected
    assert {*re.findall(r'popover id="([^"]*)"', page)} == {*expected}


def test_near_copies_are_shown_once_with_their_count(report: Report) -> None:
    same = np.arange(40)
    same[5] = 1
    rows = Rows(report.rows.names, same)
    report = Report(**vars(report) | {"rows": rows})
    mistakes = [
        (image.number, image.copies) for image in report.gallery.show(np.array([5, 6, 1]), 9)
    ]
    assert mistakes == [(5, 1), (6, 0)]
    assert "and 1 near copy" in report_page(report, [])


@pytest.mark.parametrize("classes", [2, 10, 300])
def test_a_page_of_photographs_is_below_three_megabytes(inside: Inside, classes: int) -> None:
    page = report_page(of_noise(inside, classes), [])
    assert len(page.encode()) < 3e6
    assert "popover id=" in page


def test_no_class_name_is_a_formula_in_the_tables(tmp_path: Path, report: Report) -> None:
    names = ["=1+1", "@dog", "-5", "eel"]
    write_tables(tmp_path, report_of(report.test, report.predictions, report.inside, names))
    for name, column in (("predictions", "actual"), ("predictions", "predicted")):
        table = pd.read_csv(tmp_path / f"{name}.csv", dtype=str)
        assert {*table[column]} == {"'=1+1", "'@dog", "-5", "eel"}
    per_class = pd.read_csv(tmp_path / "per_class.csv", dtype=str)
    assert per_class["class"].tolist() == ["'=1+1", "'@dog", "-5", "eel"]


def test_a_model_without_mistakes_has_a_page_and_so_have_few_images(inside: Inside) -> None:
    test = learnable_split(4, seed=0)
    predictions = with_mistakes(test.labels, [], 4)
    page = report_page(report_of(test, predictions, inside, NAMES, pictures=100), [])
    assert "None: every test image is right" in page
    assert "The worst mistakes" not in page
    assert "only 4 test images" in page


def test_the_cost_counts_parameters_products_and_bytes(tmp_path: Path) -> None:
    params = make_params(model__hidden=[6])
    classifier = build_classifier(params.model, STATS, (8, 8, 1), 4)
    save_classifier(classifier, description(class_names=NAMES, image_shape=[8, 8]), tmp_path / "it")
    found = cost(classifier, tmp_path / "it", learnable_split(4, seed=0).images)
    assert found.parameters == 65 * 6 + 7 * 4
    assert found.operations == 2 * (64 * 6 + 6 * 4)
    assert found.size == (tmp_path / "it/model.safetensors").stat().st_size > 4 * found.parameters
