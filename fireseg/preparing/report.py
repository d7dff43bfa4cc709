"""The report of a finished folder of patches: a page and a picture, made anew from the folder whenever wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fireseg.preparing.chapters import (
    describe_leaks,
    describe_left_out,
    describe_oddities,
    describe_recipe,
    describe_splits,
    describe_tiles,
    list_warnings,
    summarise,
)
from fireseg.preparing.contents import Contents, get_task, read_contents
from fireseg.preparing.examples import Example, pick_examples, read_examples
from fireseg.render import choose_recipe, colour_classes, composite
from fireseg.render.balance import Panel, draw_panel, list_panels, render_balance
from fireseg.render.page import Picture, Section, Strip, Table, encode_pixels, render_page, to_uri
from fireseg.render.panels import spell_share

REPORT = "report.html"
BALANCE = "balance.png"


def write_report(patches_root: Path) -> None:
    """Draws `balance.png` and writes `report.html` into a finished folder of patches. The page is written last.

    The bytes depend on what is in the folder alone, not on its place or on the time of day.

    Args:
        patches_root: A folder that `python -m fireseg.prepare` finished.

    Raises:
        FiresegError: If it did not, files are gone, or nothing can be written.
    """
    contents = read_contents(patches_root)
    summary = summarise(contents)
    render_balance(contents.balance, patches_root / BALANCE, title=summary)
    shown = list_panels(contents.balance)
    sections = [
        *list_warnings(contents),
        describe_splits(contents),
        _show_classes(contents, shown),
        _show_patches(shown),
        _show_map(shown),
        _show_examples(contents),
        describe_left_out(contents),
        describe_leaks(contents),
        describe_oddities(contents),
        describe_tiles(contents),
        describe_recipe(contents),
    ]
    render_page(patches_root / REPORT, title="What these patches hold", summary=summary, sections=sections)


def _show_classes(contents: Contents, shown: Sequence[Panel]) -> Section:
    text = [
        "How common each class is decides how much a pixel of it should weigh. The recommended weights come from the "
        "training split alone: inverse frequency, the largest at most 20 times the smallest, mean 1. Training works "
        "them out by itself (loss.class_weights=true, loss.weight_cap=20), so there is nothing to copy.",
        "Training patches overlap, so ground in two patches counts twice. In val and test every pixel counts once.",
    ]
    tables = []
    for counts in contents.balance.classes:
        names = counts.task.class_names
        rows = []
        for number, name in enumerate(names):
            cells = [f"{counts.pixels[split][number]:,}" for split in contents.splits]
            cells += [f"{counts.patches[split][number]:,}" for split in contents.splits]
            rows.append([name, *cells, f"{counts.weights[number]:.4g}" if counts.weights else "-"])
        columns = ["class", *(f"{split} px" for split in contents.splits)]
        columns += [*(f"{split} patches" for split in contents.splits), "weight"]
        kind = {"del": "Delineation (DEL)", "gra": "Grading (GRA)"}.get(counts.task.name, counts.task.name)
        caption = f"{kind}: pixels, patches with it, weight"
        tables.append(Table(caption, columns, rows, "l" + "r" * (len(columns) - 1)))
    pictures = _draw(shown, "classes")
    return Section(name="classes", title="Classes and their weights", text=text, pictures=pictures, tables=tables)


def _show_patches(shown: Sequence[Panel]) -> Section:
    text = [
        "A fire is an activation: the burned area of all its tiles as delineated, clouds or not; where tiles of one "
        "activation overlap, the ground counts twice. The lines are medians. The numbers on the bars are patches."
    ]
    return Section(name="fires", title="Fires and clouds", text=text, pictures=_draw(shown, "patches"))


def _show_map(shown: Sequence[Panel]) -> Section:
    text = [
        "Footprints of the tiles in degrees, north up; tiles too small to be seen at this scale have a mark around "
        "them. Colours and marks show the split. There is no base map, since this page asks no network for anything."
    ]
    return Section(name="map", title="Where the tiles lie", text=text, pictures=_draw(shown, "map"))


def _draw(shown: Sequence[Panel], kind: str) -> list[Picture]:
    return [
        Picture("" if kind == "map" else panel.title, to_uri(draw_panel(panel), "png"), panel.alt, panel.is_wide)
        for panel in shown
        if panel.kind == kind
    ]


def _show_examples(contents: Contents) -> Section:
    picked = pick_examples(contents.tiles, contents.splits)
    examples = read_examples(contents.root, picked, contents.masks)
    bands = contents.manifest["bands"]
    text = [
        "Chosen to differ, not at random: from little burned to much, of as many fires as there are, and about a "
        f"quarter without fire. Images: {choose_recipe(bands).caption}. Striped: not labelled, under cloud, beyond the "
        "tile, or counted in a neighbouring patch; it weighs nothing in training and scores."
    ]
    several = len(contents.masks) > 1
    key = {
        f"{counts.task.name.upper()} {name}" if several else name: colour
        for counts in contents.balance.classes
        for name, colour in zip(counts.task.class_names, counts.task.colours, strict=True)
    }
    key["not labelled"] = "repeating-linear-gradient(135deg, #fff 0 3px, #8c8c8c 3px 6px)"
    strips = [_show_example(example, bands) for example in examples]
    title = f"{len(strips)} examples" if len(strips) != 1 else "One example"
    return Section(name="examples", title=title, text=text, strips=strips, key=list(key.items()))


def _show_example(example: Example, bands: Sequence[str]) -> Strip:
    burned = spell_share(example.facts["burn_fraction"])
    picture = encode_pixels(composite(example.image, bands), "jpeg")
    pictures = [Picture("image", picture, f"Satellite image of patch {example.name}")]
    for mask, labels in example.masks.items():
        alt = f"{mask.upper()} mask of patch {example.name}: {burned} of its labelled pixels burned"
        pictures.append(Picture(mask.upper(), encode_pixels(colour_classes(labels, get_task(mask)), "png"), alt))
    cloud = example.facts["cloud_cover"]
    caption = f"{example.split}, {burned} burned" + (f", {spell_share(cloud)} cloud" if cloud else "")
    return Strip(example.name, caption, pictures)
