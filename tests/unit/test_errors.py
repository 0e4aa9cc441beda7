import pickle

import pytest

from ovray import errors

EVERY_ERROR = [value for value in vars(errors).values() if isinstance(value, type)]


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_an_error_survives_pickling(error: type[errors.OvrayError]) -> None:
    copy = pickle.loads(pickle.dumps(error("what, where, what next")))

    assert type(copy) is error
    assert copy.args == ("what, where, what next",)
    assert str(copy) == "what, where, what next"


def test_only_what_the_caller_can_mend_ends_with_code_2() -> None:
    mendable = {error.__name__ for error in EVERY_ERROR if error.exit_code == 2}

    assert mendable == {"ConfigError"}
