from imageclf.tracking.tags import WHOLE, given, shortened, whole

DIGEST = "a1" * 32


def test_long_hashes_are_shown_short_and_come_back() -> None:
    tags = {"fingerprint": "f" * 64, "git_commit": "b" * 40, "data.val": DIGEST, "device": "cpu"}
    short = shortened(tags)
    assert short["fingerprint"] == "f" * 64  # scripts search for it
    assert (short["git_commit"], short["data.val"]) == ("b" * 12, DIGEST[:12])
    assert short[f"{WHOLE}data.val"] == DIGEST
    assert tags.items() <= whole(short).items()
    assert shortened(whole(short)) == short


def test_a_text_is_given_until_a_user_changes_it() -> None:
    first = given({}, "note", "one")
    assert first["note"] == "one"
    assert given(first, "note", "two")["note"] == "two"
    assert given(first | {"note": "mine"}, "note", "two") == {}
    assert given({"note": "mine"}, "note", "two") == {}
