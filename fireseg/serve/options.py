"""Options of the `serve` command."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import tyro

from fireseg.console import metavar
from fireseg.errors import SettingError

TOKEN_VARIABLE = "FIRESEG_TOKEN"

_MIN_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Run, folders and limits of a server.

    Attributes:
        run: Run folder, checkpoint file, or MLflow URI; RUN1,RUN2,… maps with the mean of several.
        root: Folder whose scenes can be picked on the page; nothing else on this machine can be.
        out: Folder for the queue, uploaded scenes and maps; the next start goes on with it.
        host: Address to listen on; other machines reach the server only with another one, which needs --token.
        port: Port to listen on; 0 for any free one.
        token: Secret of at least 16 characters that users have to give (default: the variable FIRESEG_TOKEN).
        device: Device for inference.
        max_upload_mb: Largest upload in MB.
        max_megapixels: Largest scene in millions of pixels; a whole Sentinel-2 tile has 121.
        max_queue: Largest number of scenes that wait.
        memory_gb: Memory that mapping one scene may take beside the model, in GB.
        time_limit_min: Minutes after which a scene has failed.
        basemap: Address of the tiles of a map below the scene, such as https://host/{z}/{x}/{y}.png; the page of a
            server without one makes no request to any other.

    Raises:
        SettingError: If values are out of range; with all faults.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    root: Annotated[Path | None, metavar("FOLDER")] = None
    out: Path = Path("served")
    host: str = "127.0.0.1"
    port: int = 8000
    token: Annotated[str | None, metavar("SECRET")] = None
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    max_upload_mb: int = 2000
    max_megapixels: float = 150.0
    max_queue: int = 50
    memory_gb: float = 6.0
    time_limit_min: float = 60.0
    basemap: Annotated[str | None, metavar("URL")] = None

    def __post_init__(self) -> None:
        faults = [
            f"--{name.replace('_', '-')}: {getattr(self, name)}, but it must be above 0"
            for name in ("max_upload_mb", "max_megapixels", "max_queue", "memory_gb", "time_limit_min")
            if not getattr(self, name) > 0
        ]
        if not 0 <= self.port <= 65535:
            faults.append(f"--port: {self.port}, but it must be 0 to 65535")
        token = self.secret
        if token is not None and (len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable()):
            faults.append(
                f"--token: a secret of at least {_MIN_TOKEN} printable ASCII characters is expected; "
                "make one with openssl rand -hex 16"
            )
        if token is None and not is_loopback(self.host):
            faults.append(
                f"--host {self.host}: other machines could use the server; add --token SECRET, or set {TOKEN_VARIABLE}"
            )
        if self.root is not None and not self.root.is_dir():
            faults.append(f"--root {self.root}: no such folder; name the folder of the scenes")
        if self.basemap is not None and (
            urlsplit(self.basemap).scheme not in ("http", "https")
            or any(part not in self.basemap for part in ("{z}", "{x}", "{y}"))
            or any(character in self.basemap for character in " ;,'\"")
        ):
            faults.append(
                f"--basemap {self.basemap}: expected is an address such as https://host/{{z}}/{{x}}/{{y}}.png"
            )
        if faults:
            raise SettingError(*faults)

    @property
    def secret(self) -> str | None:
        """The token, given as an option or in the environment."""
        return self.token or os.environ.get(TOKEN_VARIABLE) or None


def is_loopback(host: str) -> bool:
    """Returns True if an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
