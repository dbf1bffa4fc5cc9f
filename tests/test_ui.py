"""The report, and runs side by side in MLflow's own pages, as a user sees them in a browser."""

import json
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen
from urllib.parse import quote

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from helpers.params import ROOT, make_params
from helpers.reports import make_inside, of_noise
from imageclf.evaluation.report_page import report_page
from imageclf.tracking.messages import End, Metrics, describe_run
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.runs import report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
RATES = (0.001, 0.003, 0.01, 0.03)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Headless Chromium that talks to nobody but loopback, with a profile of its own."""
    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path / 'profile'}",
        "window-size=1600,1400",
    ):
        options.add_argument(f"--{argument}")
    driver = Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


def four_runs() -> list[str]:
    """The names of four runs that differ in their learning rate and their losses."""
    names = []
    for number, rate in enumerate(RATES):
        params = make_params(train__learning_rate=rate)
        run = describe_run(params, f"{number}" * 64, {})
        run = replace(run, origin=Provenance(user="Jo Doe"), started=1_700_000_000_000)
        losses = [
            Metrics(
                step,
                {"val_loss": rate + 1 / step, "val_accuracy": 1 - rate},
                1_700_000_000_000 + 1000 * step,
            )
            for step in (1, 2, 3)
        ]
        tested = Metrics(0, {"test_accuracy": 1 - rate}, 1_700_000_010_000)
        report(run, [*losses, tested, End("FINISHED", tested.time)])
        names.append(run.name)
    return names


@pytest.fixture
def interface(project: Path, free_port: int) -> Iterator[tuple[list[str], str]]:
    """The names of four runs, and the address at which `imageclf ui` shows them."""
    names = four_runs()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, project)
    program = str(Path(sys.executable).with_name("imageclf"))
    with Popen([program, "ui", "--port", str(free_port)], stdout=PIPE, text=True) as process:
        assert process.stdout
        address = process.stdout.readline().partition(": ")[2].strip()
        yield names, address
        process.send_signal(signal.SIGHUP)  # as a terminal that is closed
        assert process.wait(60) == 0
    with socket.create_server(("127.0.0.1", free_port)):
        pass  # nothing is left that listens


def await_texts(browser: Chrome, wanted: set[str], picture: Path) -> None:
    """Wait until the page shows each text, for a minute at most; then take a picture of it."""

    def missing() -> set[str]:
        text = browser.find_element(By.TAG_NAME, "body").text
        return {each for each in wanted if each not in text}

    with suppress(TimeoutException):
        WebDriverWait(browser, 60).until(lambda _: not missing())
    browser.save_screenshot(str(picture))
    assert missing() == set()


def as_query(values: list[str]) -> str:
    return quote(json.dumps(values))


def test_four_runs_are_compared(
    project: Path,
    browser: Chrome,
    interface: tuple[list[str], str],
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

    names, address = interface
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("imageclf")
    assert experiment
    runs = [run.info.run_id for run in client.search_runs([experiment.experiment_id])]
    assert len(runs) == len(set(names)) == 4

    query = f"runs={as_query(runs)}&experiments={as_query([experiment.experiment_id])}"
    browser.get(f"{address.partition('/#')[0]}/#/compare-runs?{query}")
    losses = [f"{rate + 1 / 3:.3f}" for rate in RATES]
    cells = {"train.learning_rate", "val/loss", *map(str, RATES), *losses}
    await_texts(browser, cells | {*names}, tmp_path / "compare.png")


def test_the_address_opens_on_the_runs_with_what_matters(
    interface: tuple[list[str], str], browser: Chrome, tmp_path: Path
) -> None:
    names, address = interface
    browser.get(address)
    columns = {"test/accuracy", "val/accuracy", "train.learning_rate"}
    shown = columns | {*names, *map(str, RATES)} | {str(1 - rate) for rate in RATES}
    await_texts(browser, shown, tmp_path / "runs.png")


def shown_alone(browser: Chrome, page: str, path: Path, width: int) -> None:
    """Open a page from its file in a window of that width."""
    path.write_text(page)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())


def check_pictures(browser: Chrome) -> None:
    """A cell of the matrix opens its images, and every picture of the page is drawn."""
    cell = browser.find_element(By.CSS_SELECTOR, ".matrix button")
    opened = browser.find_element(By.ID, cell.get_attribute("popovertarget") or "")
    assert not opened.is_displayed()
    browser.execute_script("arguments[0].click()", cell)
    assert opened.is_displayed()
    assert opened.find_elements(By.TAG_NAME, "img")
    assert browser.execute_script(
        "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )


@pytest.mark.parametrize("classes", [2, 10, 300])
def test_the_report_needs_no_request_and_fits_a_phone(
    browser: Chrome, tmp_path: Path, classes: int
) -> None:
    page = report_page(of_noise(make_inside(), classes), [])
    shown_alone(browser, page, tmp_path / "report.html", 390)
    assert browser.execute_script("return document.scrollingElement.scrollWidth") <= 390
    requests = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert all(name.startswith("data:") for name in requests)
    check_pictures(browser)


def test_the_table_of_classes_sorts(browser: Chrome, tmp_path: Path) -> None:
    page = report_page(of_noise(make_inside(), 10), [])
    shown_alone(browser, page, tmp_path / "report.html", 1280)

    def column(place: int) -> list[str]:
        cells = browser.find_elements(By.CSS_SELECTOR, f".sorts td:nth-child({place})")
        return [cell.text for cell in cells]

    recall = column(5)
    (button,) = browser.find_elements(By.XPATH, "//th/button[.='recall']")
    for descending in (False, True):
        button.click()
        ordered = sorted(recall, key=lambda text: float(text.split()[0]), reverse=descending)
        assert column(5) == ordered
    browser.find_element(By.XPATH, "//th/button[.='class']").click()
    assert column(1) == [f"class {number}" for number in range(10)]


def test_the_report_opens_within_mlflow(
    project: Path, interface: tuple[list[str], str], browser: Chrome, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    _, address = interface
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("imageclf")
    assert experiment
    (run, *_) = client.search_runs([experiment.experiment_id])
    page = tmp_path / "index.html"
    page.write_text(report_page(of_noise(make_inside(), 10), []))
    client.log_artifact(run.info.run_id, str(page), "reports/evaluation")
    place = f"experiments/{experiment.experiment_id}/runs/{run.info.run_id}/artifacts"
    browser.get(f"{address.partition('/#')[0]}/#/{place}/reports/evaluation/index.html")
    try:
        frame = WebDriverWait(browser, 60).until(
            lambda _: browser.find_element(By.CSS_SELECTOR, "iframe.mlflow-html-iframe")
        )
        browser.switch_to.frame(frame)
        WebDriverWait(browser, 30).until(
            lambda _: browser.find_elements(By.CSS_SELECTOR, ".matrix button")
        )
        check_pictures(browser)
    finally:
        browser.save_screenshot(str(tmp_path / "report.png"))
