"""Four runs side by side in MLflow's own pages, as a user sees them."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from helpers.params import make_params
from imageclf.tracking.messages import End, Metrics, describe_run
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
        run = replace(describe_run(params, f"{number}" * 64, {}), started=1_700_000_000_000)
        losses = [
            Metrics(step, {"val_loss": rate + 1 / step}, 1_700_000_000_000 + 1000 * step)
            for step in (1, 2, 3)
        ]
        report(run, [*losses, End("FINISHED", 1_700_000_010_000)])
        names.append(run.name)
    return names


def as_query(values: list[str]) -> str:
    return quote(json.dumps(values))


def test_four_runs_are_compared(
    project: Path,
    browser: Chrome,
    mlflow_server: Callable[..., subprocess.Popen[bytes]],
    free_port: int,
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

    store = f"sqlite:///{project}/mlflow.db"
    names = four_runs()
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("imageclf")
    assert experiment
    runs = [run.info.run_id for run in client.search_runs([experiment.experiment_id])]
    assert len(runs) == len(set(names)) == 4
    mlflow_server(free_port, "ui", "--backend-store-uri", store, "--workers", "1")

    query = f"runs={as_query(runs)}&experiments={as_query([experiment.experiment_id])}"
    browser.get(f"http://127.0.0.1:{free_port}/#/compare-runs?{query}")
    losses = [f"{rate + 1 / 3:.3f}" for rate in RATES]
    cells = {"train.learning_rate", "val_loss", *map(str, RATES), *losses}

    def missing() -> set[str]:
        text = browser.find_element(By.TAG_NAME, "body").text
        return (cells - set(text.split())) | {name for name in names if name not in text}

    try:
        WebDriverWait(browser, 60).until(lambda _: not missing())
    finally:
        browser.save_screenshot(str(tmp_path / "compare.png"))
    assert missing() == set()
