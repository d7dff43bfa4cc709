"""Registers the models of runs in MLflow's model registry, with aliases and tags."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fireseg.errors import FiresegError, SettingError
from fireseg.tracker.mlflow_model import as_texts, log_model
from fireseg.tracker.mlflow_store import format_reason, get_store_errors, open_store, redact_uri
from fireseg.tracker.protocol import TrackedModel, shorten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_MAX_TAG = 5000

_MODEL_VERSIONS = "mlflow.modelVersions"
"""Tag of a stored model by which MLflow's pages show its registered versions."""


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """A version of a registered model.

    Attributes:
        name: Name of the registered model.
        number: Number of the version, from 1.
        is_new: True if this call has registered it.
        alias: Alias that stands for it; empty for none.
        former_number: Version that the alias stood for before; empty if it is new.
    """

    name: str
    number: str
    is_new: bool
    alias: str = ""
    former_number: str = ""


def check_names(name: str, alias: str | None) -> None:
    """Checks the names of a registered model and of an alias.

    Raises:
        SettingError: If MLflow accepts one of them not; with all faults.
    """
    faults = []
    if not name.strip() or re.search(r"[/:@]", name) or name.strip(".") == "":
        faults.append(f"--name: '{name}', but a name without / : and @ is expected, such as burned-area")
    if alias is not None and (not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"(?i)latest|v\d+", alias)):
        faults.append(
            f"--alias: '{alias}', but letters, digits, - and _ are expected, and neither latest nor v1, which stand "
            "for versions; such as champion"
        )
    if faults:
        raise SettingError(*faults)


def register_model(
    uri: str,
    run_id: str,
    model: TrackedModel,
    *,
    name: str,
    alias: str | None = None,
    tags: Mapping[str, Any],
    description: str = "",
) -> RegisteredVersion:
    """Registers the checkpoint of a run as a version of a model, unless an equal one is a version already.

    Args:
        uri: URI of the store, from `resolve_uri`.
        run_id: MLflow run that trained the model.
        model: Checkpoint with its description.
        name: Name of the registered model, which is created if it does not exist.
        alias: Alias that is to stand for the version; it leaves the one that it stood for.
        tags: Tags of the version, plain values.
        description: Description of the version in Markdown.

    Raises:
        FiresegError: If the store cannot be reached or refuses the model.
    """
    try:
        client = open_store(uri, create=False)
        model_id, _ = log_model(client, run_id, model)
        aliases = _ensure_registered(client, name)
        source = f"models:/{model_id}"
        version = _find_version(client, name, source)
        is_new = version is None
        if version is None:
            version = client.create_model_version(name, source, run_id, model_id=model_id, description=description)
        for key, value in as_texts(tags).items():
            client.set_model_version_tag(name, version.version, key, shorten(value, _MAX_TAG))
        _link_version(client, model_id, name, str(version.version))
        if alias is not None:
            client.set_registered_model_alias(name, alias, version.version)
    except get_store_errors() as error:
        reason = format_reason(error, uri)
        raise FiresegError(
            f"{name}: not registered in MLflow at {redact_uri(uri)} ({reason}); check the server and "
            "MLFLOW_TRACKING_URI, then the same command again"
        ) from error
    former = str(aliases.get(alias, "")) if alias else ""
    return RegisteredVersion(
        name=name, number=str(version.version), is_new=is_new, alias=alias or "", former_number=former
    )


def _ensure_registered(client: MlflowClient, name: str) -> Mapping[str, Any]:
    """Creates a registered model if it does not exist, and returns its aliases with their versions."""
    from mlflow.exceptions import MlflowException

    try:
        return client.create_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_registered_model(name).aliases


def _find_version(client: MlflowClient, name: str, source: str) -> ModelVersion | None:
    # The attribute model_id is not set in versions that an SQLite store returns.
    versions = client.search_model_versions(f"name = '{name}'")
    return next((version for version in versions if version.source == source), None)


def _link_version(client: MlflowClient, model_id: str, name: str, number: str) -> None:
    links = json.loads(client.get_logged_model(model_id).tags.get(_MODEL_VERSIONS, "[]"))
    if (link := {"name": name, "version": number}) not in links:
        client.set_logged_model_tags(model_id, {_MODEL_VERSIONS: json.dumps([*links, link])})
