"""Names of scenes that clients send are names, never paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.serve.names import check_upload_name, find_scene, list_scenes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "scenes"
    (root / "2025").mkdir(parents=True)
    (tmp_path / "secret.tif").write_bytes(b"secret")
    for name in ("a.tif", "2025/b c.tif", "a_SCL.tif", "a.json", ".hidden.tif", "notes.txt"):
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    "name",
    [
        "../secret.tif",
        "2025/../../secret.tif",
        "2025/../a.tif",
        "./a.tif",
        "/etc/passwd",
        "/etc/hostname.tif",
        "//a.tif",
        "a.tif/",
        "",
        "/vsicurl/http://127.0.0.1/a.tif",
        "/vsizip/a.zip/a.tif",
        "http://127.0.0.1/a.tif",
        "file:///etc/passwd.tif",
        "GTIFF_DIR:1:a.tif",
        "..\\secret.tif",
        "C:\\a.tif",
        "a.tif\0.tif",
        "a.tif\n",
        ".hidden.tif",
        "a.json",
        "notes.txt",
        "a_SCL.tif",
        "missing.tif",
        "2025",
        "~/a.tif",
        "%2e%2e/secret.tif",
    ],
)
def test_a_name_that_is_no_scene_below_the_root_is_refused(root: Path, name: str) -> None:
    with pytest.raises(FiresegError, match=r"^path: no scene of that name .*GET /root"):
        find_scene(root, name)


def test_scenes_below_the_root_are_listed_and_found(root: Path) -> None:
    product = root / "S2A_MSIL2A_X.SAFE"
    (product / "GRANULE").mkdir(parents=True)
    (product / "GRANULE" / "B02.jp2").write_bytes(b"x")
    assert list_scenes(root, without=root / "served") == ["2025/b c.tif", "S2A_MSIL2A_X.SAFE", "a.tif"]
    assert find_scene(root, "2025/b c.tif") == Path("2025/b c.tif")
    with pytest.raises(FiresegError, match="no scene"):
        find_scene(root, "S2A_MSIL2A_X.SAFE/GRANULE/B02.jp2")


def test_the_files_of_the_server_are_not_listed(root: Path) -> None:
    (root / "served").mkdir()
    (root / "served" / "c.tif").write_bytes(b"x")
    assert "served/c.tif" not in list_scenes(root, without=root / "served")
    assert "served/c.tif" in list_scenes(root, without=root / "elsewhere")


@pytest.mark.parametrize("link", ["link.tif", "folder/b.tif", "a_SCL.tif", "A.json", "P.SAFE/MTD_MSIL2A.xml"])
def test_a_scene_behind_or_beside_a_symbolic_link_is_refused(tmp_path: Path, link: str) -> None:
    root, outside = tmp_path / "scenes", tmp_path / "outside"
    (root / "P.SAFE").mkdir(parents=True)
    outside.mkdir()
    (outside / "b.tif").write_bytes(b"x")
    (root / "a.tif").write_bytes(b"x")
    assert find_scene(root, "a.tif") == Path("a.tif")
    if link == "folder/b.tif":
        (root / "folder").symlink_to(outside)
    else:
        (root / link).symlink_to(outside / "b.tif")
    name = {"a_SCL.tif": "a.tif", "A.json": "a.tif", "P.SAFE/MTD_MSIL2A.xml": "P.SAFE"}.get(link, link)
    with pytest.raises(FiresegError, match="no scene of that name"):
        find_scene(root, name)
    assert name not in list_scenes(root, without=tmp_path)


@pytest.mark.parametrize(
    "name",
    ["", "..", ".tif", "../a.tif", "a/b.tif", "a\\b.tif", "a\0.tif", "a\n.tif", "a:b.tif", "x" * 200 + ".tif"],
)
def test_an_upload_needs_a_plain_name(name: str) -> None:
    with pytest.raises(FiresegError, match=r"^name: .*rename"):
        check_upload_name(name)


@pytest.mark.parametrize("name", ["a.vrt", "a.json", "a.xml", "a", "a.tif.exe"])
def test_an_upload_needs_the_name_of_a_raster(name: str) -> None:
    with pytest.raises(FiresegError, match=r"^name: .*convert"):
        check_upload_name(name)


@pytest.mark.parametrize(
    "name", ["scene.tif", "S2A_MSIL2A_20250824T112121_N0511.SAFE.zip", "Évora (2).TIFF", "a b.jp2"]
)
def test_plain_names_of_rasters_are_accepted(name: str) -> None:
    assert check_upload_name(name) == name
