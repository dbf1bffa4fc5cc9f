"""`imageclf rate`."""

import click

from imageclf.commands.common import examples
from imageclf.project.folder import REPORTS

PICTURE = "rate.png"


@click.command(epilog=examples("dvc repro embed && imageclf rate"))
def rate() -> None:
    """Suggest a learning rate for this network and these data.

    Takes some hundred steps, at rates that rise from one to the next, and looks at the loss. It
    needs what `dvc repro embed` prepares. It trains nothing that lasts, and changes no parameter.
    Writes reports/rate.png.
    """
    from imageclf.params import load_params
    from imageclf.training.begin import begin_from_files, runtime_of

    params = load_params()
    runtime = runtime_of(params)

    from rich.console import Console

    from imageclf.drawing.plots import rate_curve, save_figure
    from imageclf.system.progress import image_progress
    from imageclf.training.rate_finder import STEPS, find_rate

    _, training = begin_from_files(params, runtime.device)
    with image_progress(Console(), STEPS * params.train.batch_size) as advance:
        curve = find_rate(training, advance)
    suggestion, now = curve.suggestion, params.train.learning_rate
    figure = rate_curve(curve.rates, curve.losses, curve.smoothed, suggestion, now)
    save_figure(figure, REPORTS / PICTURE)
    click.echo(f"train.learning_rate: {suggestion:.1g} is suggested; it is {now:g} now")
    click.echo(f"the curve: {REPORTS / PICTURE}")
