"""Tests of the programs in docs/export.md, in a process that cannot import fireseg."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fireseg.predict.api import Run
from fireseg.runs.folder import RunFolder
from tests.export.builders import load
from tests.predict.builders import draw_image, write_scene

DOCUMENT = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.mark.parametrize(("library", "fixture"), [("onnxruntime", "onnx_export"), ("openvino", "openvino_export")])
def test_ten_lines_without_fireseg_give_the_map_of_fireseg(
    library: str, fixture: str, run: RunFolder, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (program,) = (text for text in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S) if library in text)
    assert len([line for line in program.splitlines() if line]) <= 10
    folder: Path = request.getfixturevalue(fixture)
    program = program.replace(f"export_{folder.name.partition('_')[2]}/", f"{folder}/")
    image = np.rint(draw_image(70, 90) * 10_000).astype(np.uint16)
    write_scene(tmp_path / "scene.tif", image)
    program = f"import sys\nsys.modules['fireseg'] = None\n{program}\nnp.save('classes.npy', classes)"
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True, timeout=300)
    expected = Run(load(run)).predict(image.astype(np.float32) / 10_000).classes
    assert (np.load(tmp_path / "classes.npy") == expected).mean() > 0.9999
    assert set(np.unique(expected)) == {0, 1}
