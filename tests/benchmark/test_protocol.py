"""Protocols of a benchmark: what is accepted, refused, and continued."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fireseg.benchmark.protocol import Group, Recipe, read_protocol, settle_protocol
from fireseg.errors import SettingError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_protocol_of_the_documents_is_valid(tmp_path: Path) -> None:
    text = Path("docs/benchmark.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    protocol = read_protocol(write(tmp_path / "protocol.yaml", example))
    assert (protocol.base, protocol.folds, protocol.seeds, protocol.max_tiles) == ("base", 5, (0, 1), (9, None))
    assert protocol.recipes["no class weights"] == Recipe(settings=("loss.class_weights=false",))
    assert protocol.get_size(protocol.recipes["large patches"]) == (224, 112)
    assert Group("no class weights", 9).folder_name == "no_class_weights-9"


def test_all_faults_are_told_with_their_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "folds: 2\nseed: 1\nrecipes: {'../x': []}\n")
    with pytest.raises(SettingError) as caught:
        read_protocol(path)
    text = "\n".join(caught.value.faults)
    assert [part in text for part in (f"{path}: folds", f"{path}: seed", "recipes.../x")] == [True] * 3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("recipes: {a: [data.fold=1]}", r"recipes\.a\.settings: data\.fold=1: is given by the benchmark itself"),
        ("settings: [seed=3]\nrecipes: {a: []}", r"settings: seed=3: .*use folds, seeds or max_tiles"),
        ("prepare: [--stride=9]\nrecipes: {a: []}", r"prepare: --stride=9: .*use size, stride"),
        ("recipes: {a: {size: 32}}", r"recipes\.a: stride 64 is larger than the patch size 32"),
        ("seeds: [1, 1]\nrecipes: {a: []}", r"seeds: a value is there twice"),
        (
            "seeds: [0, 1]\nensembles: {e: [b]}\nrecipes: {a: []}",
            r"ensembles\.e: b: no such recipe.*name some",
        ),
        ("ensembles: {e: [a]}\nrecipes: {a: []}", r"ensembles\.e: one model is no ensemble; name several recipes, or"),
        (
            "ensembles: {a: [a, a]}\nrecipes: {a: []}",
            r"(?s)ensembles\.a: is the name of a recipe.*there twice",
        ),
        ("ensembles: {e: [a, b]}\nrecipes: {a: [], b: {size: 224}}", r"ensembles\.e: recipes of different patch sizes"),
        ("recipes: {a b: [], A_b: []}", r"recipes: two names differ only"),
        ("recipes: {", r"cannot be read"),
        ("- 3", r"content: .*docs/benchmark\.md"),
    ],
)
def test_what_cannot_be_judged_is_refused(text: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=fault):
        read_protocol(write(tmp_path / "a.yaml", text))


def test_a_missing_protocol_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"none\.yaml: no such file"):
        read_protocol(tmp_path / "none.yaml")


def test_recipes_and_seeds_may_be_added_and_nothing_else_changed(tmp_path: Path) -> None:
    kept = tmp_path / "protocol.yaml"
    first = write(tmp_path / "first.yaml", "recipes: {a: [], b: [optimizer.lr=1]}\n")
    settle_protocol(read_protocol(first), kept, first)
    more = write(tmp_path / "more.yaml", "seeds: [0, 1]\nrecipes: {a: [], b: [optimizer.lr=1], c: []}\n")
    settle_protocol(read_protocol(more), kept, more)
    assert kept.read_text() == more.read_text()
    other = write(tmp_path / "other.yaml", "folds: 4\nrecipes: {b: [optimizer.lr=2], a: []}\n")
    with pytest.raises(SettingError) as caught:
        settle_protocol(read_protocol(other), kept, other)
    (fault,) = caught.value.faults
    for part in ("folds: 5 there, 4 here", "recipes.b: has changed", "recipes.c: is missing", "the first is a there"):
        assert part in fault
    assert kept.read_text() == more.read_text()
