from imageclf.tracking.wording import LONGEST_NAME, run_name

PARAMS = {"model.name": "mlp", "train.learning_rate": 0.003}


def test_a_run_is_named_by_what_it_is_and_what_it_reached() -> None:
    assert run_name(PARAMS) == "mlp lr 0.003"
    assert run_name(PARAMS, accuracy=0.8714) == "mlp lr 0.003 · 87.1 %"
    assert run_name(PARAMS, "gaudy-oboe", 1.0) == "gaudy-oboe · mlp lr 0.003 · 100.0 %"
    assert len(run_name(PARAMS, "x" * 999)) == LONGEST_NAME
