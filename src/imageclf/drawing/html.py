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
    environment.filters["told"] = _told
    return environment.get_template(template.name).render(values)


def _told(text: str) -> Markup:
    """A sentence with what stands in backticks as ``<code>``, and no line that begins with %."""
    marked = re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))).replace(" %", "\N{NBSP}%")
    return Markup(marked)  # noqa: S704 (escaped)
