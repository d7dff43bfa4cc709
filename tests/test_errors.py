"""Errors that a user can mend."""

from fireseg.errors import FiresegError, SettingError, did_you_mean


def test_an_error_says_all_its_faults_and_keeps_them_apart():
    error = FiresegError("a: wrong", "b: wrong")

    assert str(error) == "a: wrong\nb: wrong"
    assert error.faults == ("a: wrong", "b: wrong")


def test_a_setting_error_ends_a_door_with_two_and_others_with_one():
    assert (FiresegError("x").exit_code, SettingError("x").exit_code) == (1, 2)


def test_the_nearest_name_is_offered_and_a_far_one_is_not():
    assert did_you_mean("encodr", ["arch", "encoder"]) == " (did you mean 'encoder'?)"
    assert did_you_mean("zzz", ["arch", "encoder"]) == ""
