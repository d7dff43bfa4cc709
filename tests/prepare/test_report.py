"""Report of a finished folder of patches."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fireseg.errors import FiresegError
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.pipeline import prepare
from fireseg.prepare.report import read_prepared, select_examples, write_report
from tests.prepare.builders import write_set, write_tile

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

SMALL = TilingOptions(size=32)
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"),
    "--virtual-time-budget=20000",
)
PROBE = """<iframe id=f style='border:0;width:WIDTHpx;height:900px' src='report.html'></iframe><script>
onload = () => {
  const page = document.getElementById('f').contentDocument;
  const all = [...page.images], shown = all.filter(i => i.naturalWidth > 0 && i.width > 0);
  document.title = [all.length, shown.length, page.documentElement.scrollWidth].join(' ');
}
</script>"""


class Page(HTMLParser):
    """Images and text of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


def cut(tiles: Path, patches: Path, tiling: TilingOptions = SMALL, **options: bool) -> Path:
    prepare(PrepareOptions(tiles=tiles, patches=patches, tiling=tiling, **options))  # pyright: ignore[reportArgumentType]
    return patches


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches of a set with a cloud, an unreadable mask, a tile without GRA and CM, and a fire in two splits."""
    folder = tmp_path_factory.mktemp("set")
    tiles = write_set(folder / "tiles")
    cloud = np.zeros((40, 56), np.uint8)
    cloud[:, :28] = 1
    write_tile(tiles, "EMSR200_AOI01_01", west=20.0, cloud=cloud)
    write_tile(tiles, "EMSR201_AOI01_01", west=22.0, kinds=("DEL",))
    write_tile(tiles, "EMSR100_AOI02_01", split="val", west=24.0, seed=7)
    broken = write_tile(tiles, "EMSR202_<b>", west=26.0)
    (broken / "EMSR202_<b>_DEL.tif").write_bytes(b"no raster")
    root = cut(tiles, folder / "patches", allow_leaks=True, allow_bad=True)
    write_report(root)
    return root


def test_windows_as_large_as_the_tiles_are_a_warning(tmp_path: Path, page: Page) -> None:
    root = cut(write_set(tmp_path / "tiles", height=96, width=96), tmp_path / "patches", TilingOptions(size=96))
    write_report(root)

    assert "Windows of 96 px are nearly as large as the training tiles" in Page((root / "report.html").read_text()).text
    assert "nearly as large as the training tiles" not in page.text


@pytest.fixture(scope="module")
def page(patches: Path) -> Page:
    return Page((patches / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_no_network(patches: Path, page: Page) -> None:
    text = (patches / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)
    assert page.images
    assert all((image["src"] or "").startswith("data:image/") for image in page.images)


def test_every_image_has_a_description(page: Page) -> None:
    assert all(len(image["alt"] or "") > 15 for image in page.images)


def test_the_counts_of_the_page_are_those_of_the_masks(patches: Path, page: Page) -> None:
    masks = np.load(patches / "train" / "masks_del.npy")
    burned, ground = int((masks == 1).sum()), int((masks == 0).sum())
    with_fire = int((masks == 1).any(axis=(1, 2)).sum())
    assert f"{burned:,}" in page.words
    assert f"{ground:,}" in page.words
    data = read_prepared(patches)
    assert data.balance.classes[0].pixels["train"] == [ground, burned]
    assert data.balance.classes[0].patches["train"][1] == with_fire
    assert data.balance.classes[0].weights[1] > data.balance.classes[0].weights[0]


def test_windows_and_tiles_left_out_are_listed_with_reasons(patches: Path, page: Page) -> None:
    left_out = json.loads((patches / "manifest.json").read_text())["left_out"]["cloud"]
    assert left_out["windows"] > 0
    assert "more than 50 % cloud (--max-cloud)" in page.text
    assert f"{left_out['labelled_pixels']:,}" in page.words
    assert "train EMSR202_<b>" in page.text
    assert "truncated or not a raster" in page.text


def test_a_class_without_training_pixels_is_named_in_the_warnings(tmp_path: Path) -> None:
    root = cut(write_set(tmp_path / "tiles", train=1), tmp_path / "patches", TilingOptions(size=64))
    lines = (root / "tiles.jsonl").read_text().splitlines()
    tiles = [json.loads(line) for line in lines[1:]]
    for tile in tiles:
        tile["pixels"]["gra"][3] = 0
    (root / "tiles.jsonl").write_text("\n".join([lines[0], *map(json.dumps, tiles)]) + "\n")
    write_report(root)
    text = Page((root / "report.html").read_text(encoding="utf-8")).text
    assert re.findall(r"No training pixel of class (\w+) \(GRA\)", text) == ["high"]


def test_a_report_without_an_audit_leaves_it_out(patches: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(patches, tmp_path / "copy")
    (copy / "audit.json").unlink()
    write_report(copy)
    text = Page((copy / "report.html").read_text(encoding="utf-8")).text
    assert "1 leak between the splits accepted" in text
    assert "checked for" not in text


def test_accepted_leaks_are_in_the_warnings_and_in_a_table(page: Page) -> None:
    assert "1 leak between the splits accepted" in page.text
    assert re.search(r"EMSR100_AOI02_01.*EMSR100", page.text)


def test_the_cloud_cover_of_a_tile_without_cloud_mask_is_unknown(patches: Path) -> None:
    clouds = read_prepared(patches).balance.cloud["train"]
    without = [row for tile in read_prepared(patches).tiles if "CM" in tile.missing for row in tile.rows]
    assert np.isnan(clouds).sum() == len(without) > 0


def test_sixteen_examples_have_images_and_masks(page: Page) -> None:
    assert "16 examples" in page.text
    assert sum("Satellite image" in (image["alt"] or "") for image in page.images) == 16
    assert sum("DEL mask of" in (image["alt"] or "") for image in page.images) == 16
    assert sum("GRA mask of" in (image["alt"] or "") for image in page.images) == 16


def test_examples_are_from_every_split_and_unique(patches: Path) -> None:
    data = read_prepared(patches)
    selected = select_examples(data.tiles, data.splits)
    names = [row["patch_id"] for rows in selected.values() for row in rows]
    assert set(selected) == {"train", "val", "test"}
    assert len(set(names)) == len(names) == 16
    assert len({row["activation"] for row in selected["train"]}) == 5


def test_examples_are_all_patches_if_there_are_fewer(tmp_path: Path) -> None:
    root = cut(write_set(tmp_path / "tiles", train=1, height=30, width=30), tmp_path / "patches")
    data = read_prepared(root)
    selected = select_examples(data.tiles, data.splits)
    assert {split: len(rows) for split, rows in selected.items()} == data.manifest["patches"]


def test_the_report_of_a_copy_of_the_folder_has_the_same_bytes(patches: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(patches, tmp_path / "elsewhere")
    for name in ("report.html", "balance.png"):
        (copy / name).unlink()
    write_report(copy)
    for name in ("report.html", "balance.png"):
        assert (copy / name).read_bytes() == (patches / name).read_bytes()


def test_the_files_layout_has_the_same_counts(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=2)
    packed = cut(tiles, tmp_path / "packed")
    files = cut(tiles, tmp_path / "files", TilingOptions(size=32, layout="files", task="gra"))
    write_report(files)
    assert (files / "balance.png").stat().st_size > 10_000
    one, other = read_prepared(packed).balance, read_prepared(files).balance
    assert [counts.task.name for counts in other.classes] == ["gra"]
    assert one.classes[1] == other.classes[0]


def test_the_area_of_a_fire_is_that_of_its_pixels_on_the_ground(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0, height=40, width=40)
    data = read_prepared(cut(tiles, tmp_path / "patches"))
    # On the WGS 84 ellipsoid, 1e-4 degrees at 39.998 degrees are 11.104 m north and 8.540 m east: 94.82 m2.
    burned = np.hypot(*(np.mgrid[:40, :40] - 20)) < 13
    assert data.balance.fires_ha["train"] == pytest.approx([burned.sum() * 94.82 / 10_000], rel=1e-4)


def test_a_folder_that_is_not_finished_raises(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"not a finished folder.*run it again"):
        write_report(tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to open the page with")
@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_shows_every_image_and_nothing_is_wider_than_the_window(
    patches: Path, tmp_path: Path, width: int
) -> None:
    assert CHROMIUM is not None
    probe = PROBE.replace("WIDTH", str(width))
    folder = tmp_path / "page"
    folder.mkdir()
    shutil.copy(patches / "report.html", folder)
    (folder / "probe.html").write_text(probe)
    command = [CHROMIUM, *SWITCHES, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--dump-dom"]
    shown = subprocess.run(
        [*command, (folder / "probe.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    found = re.search(r"<title>(\d+) (\d+) (\d+)</title>", shown)
    assert found, shown[:2000]
    total, visible, across = map(int, found.groups())
    assert visible == total > 16
    assert across <= width
