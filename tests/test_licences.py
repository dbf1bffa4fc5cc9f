"""The packages with a copyleft licence are those that docs/licences.md names."""

import re
from importlib.metadata import Distribution, distributions

from helpers.params import ROOT

# The names of copyleft licences in the metadata of packages: Mozilla's, GNU's, Eclipse's and kin.
COPYLEFT = re.compile(r"MPL|Mozilla|GPL|General Public|EPL|Eclipse|EUPL|CDDL", re.IGNORECASE)
ROW = re.compile(r"^\| ([\w-]+) \| .*(?:MPL|GPL)-\d", re.MULTILINE)


def licences(package: Distribution) -> list[str]:
    """What the metadata of a package say of its licence; of a whole text the first line."""
    told = package.metadata
    classifiers = [text for text in told.get_all("Classifier", []) if text.startswith("License")]
    whole = [told.get("License-Expression", ""), told.get("License", "").partition("\n")[0]]
    return [*whole, *classifiers]


def test_the_page_names_every_copyleft_package_that_is_installed() -> None:
    named = set(ROW.findall((ROOT / "docs/licences.md").read_text()))
    found = {
        package.name.lower()
        for package in distributions()
        if any(map(COPYLEFT.search, licences(package)))
    }
    assert found == named
