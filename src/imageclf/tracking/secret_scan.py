"""Secrets in a patch, found by the rules of detect-secrets and by the names of files."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from imageclf.files import UserError, parse_yaml

if TYPE_CHECKING:
    from detect_secrets.core.potential_secret import PotentialSecret

# Files of keys and passwords: of ssh, OpenSSL, Java, git, curl, PostgreSQL, pip and AWS.
SECRET_NAMES = (
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.ppk"),
    *("*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", ".env", ".env.*", ".netrc", "_netrc"),
    *(".git-credentials", ".htpasswd", ".pgpass", ".pypirc", ".npmrc", "credentials*"),
)
# Digests are hexadecimal, and addresses are no secret.
UNUSED_RULES = {"HexHighEntropyString", "IPPublicDetector"}
# They pass over files by their names.
UNUSED_FILTERS = ("is_lock_file", "is_non_text_file", "is_swagger_file")
HUNK = re.compile(r"^@@ -\S+ \+\S+ @@ ?", re.MULTILINE)


def secret_in_patch(name: str, patch: str) -> str | None:
    """What kind of secret a file's part of a patch seems to hold; None if none is found.

    Args:
        name: of the file; its suffix decides how its lines are read.
        patch: as `git diff --text` prints it.
    """
    if any(fnmatch(PurePosixPath(name).name.lower(), pattern) for pattern in SECRET_NAMES):
        return "a file of keys or passwords"
    _, *hunks = HUNK.split(patch.replace("\0", ""))
    sides = [
        "\n".join(line[1:] for line in hunk.split("\n")[1:] if not line.startswith(other))
        for hunk in hunks
        for other in "-+"
    ]
    contexts = [hunk.partition("\n")[0] for hunk in hunks]  # git repeats a line there
    found = secrets_in(name, *filter(None, dict.fromkeys([*contexts, *sides])))
    return next(iter(found.values()), None)


def secrets_in(name: str, *texts: str) -> dict[int, str]:
    """The kinds of the secrets that texts of a file seem to hold, by line, counted from 1."""
    found: dict[int, str] = {}
    if name.endswith((".yaml", ".yml")):  # the scan reads such a file without its comments
        texts = (*texts, *(re.sub("^[^#\\n]*#?", "", text, flags=re.MULTILINE) for text in texts))
    with TemporaryDirectory() as folder:
        path = Path(folder) / PurePosixPath(name).name
        for text in texts:
            path.write_bytes(text.encode("ascii", errors="replace"))
            for secret in _scan()(str(path)):
                line, kind = secret.line_number, secret.type
                found[line] = max(kind, found.get(line, kind))  # in any order the same one
    return found


def without_secret_comments(name: str, text: str) -> str:
    """The text of a YAML file without the comments that seem to hold secrets.

    Raises:
        UserError: a value seems to be a secret.
    """
    found, lines = secrets_in(name, text), text.split("\n")
    if not found:
        return text
    for number in found:
        lines[number - 1] = re.sub(r"(^|\s+)#.*", "", lines[number - 1])
    cleaned = "\n".join(lines)
    left = secrets_in(name, cleaned)
    if not left and _values(name, cleaned) == _values(name, text):
        return cleaned
    number, kind = next(iter((left or found).items()))
    raise UserError(
        f"{name}, line {number}: this looks like a secret ({kind}), and MLflow and git's remote "
        "would get it: remove it, or end the line with `# pragma: allowlist secret` if it is none"
    )


def _values(name: str, text: str) -> Any:
    with suppress(UserError):
        return parse_yaml(text, name)


@cache
def _scan() -> "Callable[[str], Iterator[PotentialSecret]]":
    """The scan of detect-secrets, by all rules but ``UNUSED_RULES``."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import get_settings

    classes: dict[str, type] = get_mapping_from_secret_type_to_class()
    rules = {each.__name__ for each in classes.values()}
    settings = get_settings()
    settings.configure_plugins([{"name": name} for name in sorted(rules - UNUSED_RULES)])
    settings.disable_filters(
        *(f"detect_secrets.filters.heuristic.{name}" for name in UNUSED_FILTERS)
    )
    return scan_file
