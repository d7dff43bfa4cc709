"""Tests of the options of exports."""

from __future__ import annotations

import pytest

from fireseg.errors import SettingError
from fireseg.export.options import ExportOptions


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(SettingError) as caught:
        ExportOptions(run="run", to="onnx", static=500, scale=-1.0)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["--static", "--scale"]


def test_values_of_a_layer_in_qgis_need_an_onnx_file_of_fixed_size() -> None:
    with pytest.raises(SettingError, match=r"--scale: .*--to onnx and --static 512"):
        ExportOptions(run="run", to="openvino", static=512, scale=0.0001)


def test_an_offset_without_the_scale_of_its_units_is_refused() -> None:
    with pytest.raises(SettingError, match=r"--offset: .*--scale 0.0001"):
        ExportOptions(run="run", to="onnx", static=512, offset=1000.0)


def test_models_of_mlflow_have_no_other_output_and_no_fixed_size() -> None:
    with pytest.raises(SettingError) as caught:
        ExportOptions(run="run", to="mlflow", static=512, probabilities="raw")
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["--probabilities", "--static"]


def test_int8_is_written_for_openvino_only() -> None:
    assert ExportOptions(run="run", to="openvino", precision="int8").precision == "int8"
    for to in ("onnx", "torch", "mlflow"):
        with pytest.raises(SettingError, match=f"--precision: int8 is not available with --to {to}; use --to openvino"):
            ExportOptions(run="run", to=to, precision="int8")
