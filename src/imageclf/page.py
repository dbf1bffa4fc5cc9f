"""Reports as HTML pages, made of the templates beside this file."""

from typing import Any


def render(template: str, **values: Any) -> str:
    """The page that a template and ``page.html.j2``, which it extends, make of the values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("imageclf", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)
