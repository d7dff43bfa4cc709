"""Tasks: class names, colours and checks."""

import pytest

from fireseg.errors import FiresegError
from fireseg.task import DELINEATION_CLASSES, GRADING_CLASSES, Task, get_class_names


def test_class_names_are_those_of_cems_products():
    assert get_class_names(2) == ("background", "fire")
    assert get_class_names(5) == ("no_damage", "negligible", "moderate", "high", "destroyed")


def test_other_numbers_of_classes_are_rejected_with_the_cure():
    with pytest.raises(FiresegError, match=r"num_classes: 3.*task\.class_names"):
        get_class_names(3)


def test_each_class_needs_a_name():
    with pytest.raises(FiresegError, match=r"task\.class_names: 2 .*task\.num_classes=5"):
        Task(name="gra", num_classes=5, class_names=DELINEATION_CLASSES)


def test_the_ignored_value_must_not_be_a_class():
    with pytest.raises(FiresegError, match=r"task\.ignore_index: 4"):
        Task(name="gra", num_classes=5, class_names=GRADING_CLASSES, ignore_index=4)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5, 7])
def test_each_class_has_its_own_colour(num_classes: int):
    task = Task(name="other", num_classes=num_classes, class_names=tuple(f"c{n}" for n in range(num_classes)))

    assert len(set(task.colours)) == num_classes
    assert all(len(colour) == 7 for colour in task.colours)
