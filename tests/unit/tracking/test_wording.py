from imageclf.tracking.wording import (
    LONGEST_NAME,
    MOST_TOLD,
    listed,
    model_note,
    run_name,
    run_note,
    version_note,
)

PARAMS = {"model.name": "mlp", "train.learning_rate": 0.003}


def test_a_run_is_named_by_what_it_is_and_what_it_reached() -> None:
    assert run_name(PARAMS) == "mlp lr 0.003"
    assert run_name(PARAMS, accuracy=0.8714) == "mlp lr 0.003 · 87.1 %"
    assert run_name(PARAMS, "gaudy-oboe", 1.0) == "gaudy-oboe · mlp lr 0.003 · 100.0 %"
    assert len(run_name(PARAMS, "x" * 999)) == LONGEST_NAME


def test_a_note_tells_what_on_which_data_how_well_and_what_is_not_as_by_default() -> None:
    correct = (True,) * 90 + (False,) * 10
    params = PARAMS | {"data.name": "digits", "train.epochs": 5, "register.name": "digits"}
    base = PARAMS | {"data.name": "other", "train.epochs": 20, "register.name": "other"}
    images = {"train": 1000, "val": 200, "test": 100}
    what, how_well, changed = run_note(params, base, images, 10, correct, 0.1).split("\n\n")
    assert what == "mlp on digits: 10 classes, 1,000 images for training, 200 for validation."
    assert how_well.startswith(
        "Right on **90.0 % of 100 test images (79.6 to 95.4 % with 99 % confidence)**"
    )
    assert how_well.endswith("always guessing the commonest class has 10.0 %.")
    assert changed == "Not as by default: `train.epochs` 5."
    assert "by default" not in run_note(params, params, images, 10, correct, 0.1)


def test_versions_and_models_tell_their_classes_and_not_hundreds_of_them() -> None:
    names = [f"class {number}" for number in range(300)]
    told = version_note("It is good.", names, "refused: as good", "#/report")
    assert told.startswith("It is good.\n\nAgainst the champion of that time: refused: as good.")
    assert "class 19 and 280 more" in told
    assert "class 20" not in told
    assert "digits as a, b" in model_note("digits", ["a", "b"])
    assert listed(names[:MOST_TOLD]).endswith(", class 19")
