"""Reports as HTML pages, made of templates."""

from pathlib import Path
from typing import Any


def render(template: Path, **values: Any) -> str:
    """The page that a template and ``page.html.j2``, which it extends, make of the values."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)
