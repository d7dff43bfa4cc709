"""Errors keep all faults and exit codes; misspelt names are matched."""

from pathlib import Path

import pytest

from fireseg.errors import FiresegError, SettingError, convert_unexpected_errors, did_you_mean


def test_an_error_keeps_all_faults():
    error = FiresegError("a: wrong", "b: wrong")

    assert str(error) == "a: wrong\nb: wrong"
    assert error.faults == ("a: wrong", "b: wrong")


def test_exit_codes_are_two_for_settings_and_one_otherwise():
    assert (FiresegError("x").exit_code, SettingError("x").exit_code) == (1, 2)


def test_only_a_close_name_is_suggested():
    assert did_you_mean("encodr", ["arch", "encoder"]) == " (did you mean 'encoder'?)"
    assert did_you_mean("zzz", ["arch", "encoder"]) == ""


def test_an_unexpected_error_names_the_input_and_the_kind_and_prints_the_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = pytest.raises(FiresegError, match=r"^a\.tif: .*ZeroDivisionError: division by zero.*report it")
    with expected, convert_unexpected_errors(Path("a.tif")):
        _ = 1 / 0
    assert "Traceback" in capsys.readouterr().err


def test_expected_errors_and_requests_to_stop_pass() -> None:
    for error in (FiresegError("b.tif: empty; fetch it again"), KeyboardInterrupt(), BrokenPipeError()):
        with pytest.raises(type(error)) as caught, convert_unexpected_errors("a.tif"):
            raise error
        assert caught.value is error
