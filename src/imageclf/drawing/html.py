"""Reports as HTML pages, rendered from templates."""

from pathlib import Path
from typing import Any


def render(template: Path, **values: Any) -> str:
    """Render a template, which extends ``page.html.j2``, with the values."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)
