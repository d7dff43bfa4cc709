"""Errors keep all faults and exit codes; misspelt names are matched."""

from fireseg.errors import FiresegError, SettingError, did_you_mean


def test_an_error_keeps_all_faults():
    error = FiresegError("a: wrong", "b: wrong")

    assert str(error) == "a: wrong\nb: wrong"
    assert error.faults == ("a: wrong", "b: wrong")


def test_exit_codes_are_two_for_settings_and_one_otherwise():
    assert (FiresegError("x").exit_code, SettingError("x").exit_code) == (1, 2)


def test_only_a_close_name_is_suggested():
    assert did_you_mean("encodr", ["arch", "encoder"]) == " (did you mean 'encoder'?)"
    assert did_you_mean("zzz", ["arch", "encoder"]) == ""
