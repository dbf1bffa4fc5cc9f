import tempfile
from pathlib import Path

import pytest

from helpers.params import ROOT
from imageclf.files import UserError
from imageclf.tracking.secret_scan import secret_in_patch, secrets_in, without_secret_comments

AWS = "AKIA" + "IOSFODNN7ABCDEFG"
LONG = "wJalrXUtnFEMIxK7MDENG" + "xbPxRfiCYEXAMPLEKEYx"
KEY = "-----BEGIN " + "OPENSSH PRIVATE KEY-----"


def added(*lines: str) -> str:
    return "\n".join(["diff --git a/x b/x", "@@ -0,0 +1 @@", *(f"+{line}" for line in lines), ""])


@pytest.mark.parametrize(
    ("name", "patch", "kind"),
    [
        ("src/x.py", added(f"KEY = '{AWS}'"), "AWS Access Key"),
        ("src/x.py", added(f"word = '{LONG}'"), "Base64 High Entropy String"),
        ("src/x.py", added("password = 'hunter2x'"), "Secret Keyword"),
        ("src/x.py", added("url = 'https://me:hunter2x@host/'"), "Basic Auth Credentials"),
        ("src/x.py", added(KEY), "Private Key"),
        ("src/x", added("password = hunter2x"), "Secret Keyword"),
        ("src/x.bin", added("\0".join("password = 'hunter2x'")), "Secret Keyword"),
        ("recipes/x.yaml", added("a: 1", "api_key: hunter2x"), "Secret Keyword"),
        ("recipes/x.yaml", added("a: 1  # api_key: hunter2x"), "Secret Keyword"),
        ("src/x.py", "@@ -1 +1 @@\n-password = 'hunter2x'\n+a\n", "Secret Keyword"),
        ("src/x.py", "@@ -1 +1 @@ password = 'hunter2x'\n-a\n+b\n", "Secret Keyword"),
        ("src/x.py", "@@ -1 +1,2 @@\n password = 'hunter2x'\n+b\n", "Secret Keyword"),
        ("src/.netrc", added("machine x login y password z"), "a file of keys or passwords"),
        ("keys/ID_RSA", added("1"), "a file of keys or passwords"),
        ("src/credentials.json", added("1"), "a file of keys or passwords"),
    ],
)
def test_secrets_are_found_wherever_they_stand_in_a_patch(name: str, patch: str, kind: str) -> None:
    assert secret_in_patch(name, patch) == kind


@pytest.mark.parametrize(
    "line",
    [
        "SHA256 = 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db'",
        "uuid = '123e4567-e89b-12d3-a456-426614174000'",
        "password = os.environ['PASSWORD']",
        "host = '203.0.113.7'",
        "password = 'hunter2x'  # pragma: allowlist secret",
    ],
)
def test_digests_and_names_of_variables_are_no_secrets(line: str) -> None:
    assert secret_in_patch("src/x.py", added(line)) is None


def test_nothing_of_the_projects_own_sources_is_taken_for_a_secret() -> None:
    paths = [*(ROOT / "recipes").glob("*.yaml"), ROOT / "params.yaml", ROOT / "dvc.yaml"]
    paths += [*(ROOT / "stages").glob("*.py"), ROOT / "src/imageclf/sources/catalog.py"]
    found = {path: secrets_in(path.name, path.read_text()) for path in paths}
    assert not {path: secrets for path, secrets in found.items() if secrets}


def test_comments_with_secrets_are_dropped_and_values_refused() -> None:
    text = f"a: 1\n# password: hunter2x\nb: 'x#y'  # {AWS}\nc: 2  # two\n"
    assert without_secret_comments("params.yaml", text) == "a: 1\n\nb: 'x#y'\nc: 2  # two\n"
    assert without_secret_comments("params.yaml", "a: 1  # b\n") == "a: 1  # b\n"
    for value in ("password: hunter2x  # mine", f"a: 'b # {AWS}'"):
        with pytest.raises(UserError, match="params.yaml, line 2: this looks like a secret") as one:
            without_secret_comments("params.yaml", f"x: 1\n{value}\n")
        assert AWS not in str(one.value)
        assert "hunter" not in str(one.value)
    allowed = "password: hunter2x  # pragma: allowlist secret\n"
    assert without_secret_comments("params.yaml", allowed) == allowed


def test_the_scan_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert secrets_in("src/x.py", f"KEY = '{AWS}'")
    assert not list(tmp_path.iterdir())
