"""Reports as HTML pages, rendered from templates."""

import re
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape


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
    environment.filters["code"] = _code
    return environment.get_template(template.name).render(values)


def _code(text: str) -> Markup:
    """The text with what stands in backticks as ``<code>``."""
    marked = re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text)))
    return Markup(marked)  # noqa: S704 (escaped)
