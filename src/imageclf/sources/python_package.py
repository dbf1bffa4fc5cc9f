"""A file that an installed Python package carries."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class PythonPackage:
    """A package by the name that installs it, its module, and the folder in that with the files."""

    name: str
    module: str
    inside: str

    @property
    def folder(self) -> Path | None:
        """The folder with the files; None if the package is not installed. Nothing is imported."""
        module = find_spec(self.module)
        places = module.submodule_search_locations if module else None
        return next((Path(place, self.inside) for place in places or ()), None)
