"""JSON interface and page of the server."""

# No `from __future__ import annotations`: FastAPI evaluates annotations, and those of this module are local names.

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from fireseg import __version__
from fireseg.errors import FiresegError
from fireseg.pairs import split_pair
from fireseg.serve.access import AccessControl
from fireseg.serve.names import UPLOAD_SUFFIXES, check_upload_name, find_scene, list_scenes
from fireseg.serve.options import ServeOptions
from fireseg.serve.store import INPUT, MAP, POLYGONS, Job, Store
from fireseg.serve.supervisor import Supervisor
from fireseg.serve.tiles import MAX_ZOOM, Layer, draw_tile

_STATIC = Path(__file__).parent / "static"

_IDLE_S = 60
"""Seconds after which an upload that sends nothing is given up."""

_SPARE_BYTES = 500_000_000
"""Space that an upload leaves free on the disk, for maps."""

_MAX_JSON = 10_000

FileKind = Literal["classes", "fire", "burned", "geojson", "picture", "summary"]

_MEDIA_TYPES = {
    "classes": "image/tiff",
    "fire": "image/tiff",
    "burned": "application/geopackage+sqlite3",
    "geojson": "application/geo+json",
    "picture": "image/png",
    "summary": "application/json",
}

_POST_BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a raster, with its file name in `name`; or JSON with a scene below --root.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
            },
        },
    }
}


@dataclass(kw_only=True)
class Progress:
    """Stage of a scene that is being mapped, and its share from 0 to 1."""

    stage: str
    share: float


@dataclass(kw_only=True)
class SceneStatus:
    """A scene, and its map once it is done.

    Attributes:
        id: Id of the scene.
        name: File name, or name below --root.
        state: `queued`, `running`, `done` or `failed`.
        created: Arrival, ISO 8601 in UTC.
        started: Start of the last attempt.
        ended: End of the last attempt.
        position: Place in the queue, from 1; 0 if it does not wait.
        progress: Progress while it is mapped.
        faults: Why it could not be mapped.
        has_fire: True if any pixel burned.
        max_probability: Largest fire probability, 0 to 1.
        burned_fraction: Burned share of the known pixels, 0 to 1.
        burned_ha: Burned area in hectares.
        date: Acquisition date of the scene.
        flags: Remarks that make the map less trustworthy.
    """

    id: str
    name: str
    state: Literal["queued", "running", "done", "failed"]
    created: str
    started: str
    ended: str
    position: int
    progress: Progress | None = None
    faults: list[str] = field(default_factory=list)
    has_fire: bool | None = None
    max_probability: float | None = None
    burned_fraction: float | None = None
    burned_ha: float | None = None
    date: str | None = None
    flags: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class SceneDetails(SceneStatus):
    """A scene with everything that its page shows.

    Attributes:
        summary: The JSON summary of the map, as `predict` writes it.
        classes: Name, label, colour and area in hectares of each class.
        scene_colours: Explains the colours of the picture of the scene.
        area_by_probability: Hectares of known ground by fire probability 0, 0.004, …, 1.
        bounds: West, south, east and north in degrees.
        files: Address of each file of the map.
        tiles: Address of its tiles.
    """

    summary: dict[str, Any] | None = None
    classes: list[dict[str, Any]] = field(default_factory=list)
    scene_colours: str = ""
    area_by_probability: list[float] = field(default_factory=list)
    bounds: list[float] | None = None
    files: dict[str, str] = field(default_factory=dict)
    tiles: str | None = None


def create_app(store: Store, supervisor: Supervisor, options: ServeOptions) -> Any:
    """Creates the ASGI application of a server.

    Args:
        store: Scenes.
        supervisor: Maps them; it is started and stopped with the application.
        options: Root folder, token and limits.
    """

    @asynccontextmanager
    async def run_supervisor(_: FastAPI) -> AsyncIterator[None]:
        supervisor.start()
        yield
        await run_in_threadpool(supervisor.stop)

    app = FastAPI(title="fireseg", version=__version__, docs_url=None, redoc_url=None, lifespan=run_supervisor)
    root = options.root.resolve() if options.root else None
    _add_pages(app)
    _add_errors(app)
    num_receiving = 0

    @app.get("/health", summary="State of the server")
    def get_health() -> dict[str, Any]:
        state = "failed" if supervisor.error else "ready" if supervisor.model else "loading"
        return {"status": state, "version": __version__}

    @app.get("/server", summary="Model, limits and base map")
    def get_server() -> dict[str, Any]:
        return {
            "model": supervisor.model,
            "has_root": root is not None,
            "basemap": options.basemap,
            "suffixes": UPLOAD_SUFFIXES,
            "max_upload_mb": options.max_upload_mb,
            "max_megapixels": options.max_megapixels,
        }

    @app.get("/root", summary="Scenes below --root")
    def get_root() -> dict[str, list[str]]:
        return {"scenes": list_scenes(root, without=store.folder) if root else []}

    @app.post("/scenes", status_code=202, summary="Map a scene", openapi_extra=_POST_BODY)
    async def post_scene(
        request: Request,
        response: Response,
        name: Annotated[str | None, Query(description="File name of the upload, such as scene.tif.")] = None,
        threshold: Annotated[
            float | None, Query(gt=0, lt=1, description="Lowest fire probability that counts.")
        ] = None,
        offset: Annotated[float | None, Query(allow_inf_nan=False, description="Offset of the values.")] = None,
        scale: Annotated[float | None, Query(gt=0, le=1, description="Reflectance per unit of the values.")] = None,
        nodata: Annotated[float | None, Query(allow_inf_nan=False, description="Value without a measurement.")] = None,
        trust_values: Annotated[bool, Query(description="Accept values that do not look like reflectance.")] = False,
        clouds: Annotated[
            Literal["ignore", "keep"], Query(description="Leave clouds unknown, or map them.")
        ] = "ignore",
        idempotency_key: Annotated[
            str | None, Header(max_length=200, description="A second request with the same key adds nothing.")
        ] = None,
    ) -> SceneStatus:
        nonlocal num_receiving
        settings = {"threshold": threshold, "offset": offset, "scale": scale, "nodata": nodata}
        settings = {key: value for key, value in settings.items() if value is not None}
        settings |= {"trust_values": trust_values, "clouds": clouds}
        if store.count_queued() + num_receiving >= options.max_queue:
            fault = f"{options.max_queue} scenes wait already; try again later"
            raise HTTPException(429, fault, headers={"Retry-After": "30"})
        num_receiving += 1
        try:
            with store.receive() as folder:
                if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
                    scene, base = _read_path(await _read_json(request), root), str(root)
                else:
                    scene, base = check_upload_name(name or ""), ""
                    _check_single_scene(supervisor)
                    await _save_upload(request, folder / INPUT / scene, options)
                job = await run_in_threadpool(
                    store.add, folder, scene, root=base, settings=settings, key=idempotency_key
                )
        finally:
            num_receiving -= 1
        response.headers["Location"] = f"/scenes/{job.id}"
        return _describe(job, store, supervisor)

    @app.get("/scenes", summary="All scenes, the newest first")
    def get_scenes() -> list[SceneStatus]:
        return [_describe(job, store, supervisor) for job in store.list()]

    @app.get("/scenes/{scene_id}", summary="A scene with its map")
    def get_scene(scene_id: str) -> SceneDetails:
        job = _find(store, scene_id)
        status = _describe(job, store, supervisor)
        details = SceneDetails(**vars(status))
        if (result := store.read_result(job)) is not None:
            details.summary, details.classes = result["summary"], result["classes"]
            details.area_by_probability = result["area_by_probability"]
            details.scene_colours = result["scene_colours"]
            details.bounds = result["summary"]["grid"]["bounds_lonlat"]
            details.files = {kind: f"/scenes/{job.id}/files/{kind}" for kind in _MEDIA_TYPES if kind in result["files"]}
            details.tiles = f"/scenes/{job.id}/tiles/{{z}}/{{x}}/{{y}}.png"
        return details

    @app.delete("/scenes/{scene_id}", status_code=204, summary="Delete a scene and its map")
    def delete_scene(scene_id: str) -> None:
        if not store.delete(_find(store, scene_id)):
            raise HTTPException(409, "the scene is being mapped; delete it afterwards")

    @app.get("/scenes/{scene_id}/polygons", summary="The 500 largest burned areas as GeoJSON")
    def get_polygons(scene_id: str) -> FileResponse:
        job, _ = _find_map(store, scene_id)
        return FileResponse(store.get_folder(job) / MAP / POLYGONS, media_type="application/geo+json")

    @app.get("/scenes/{scene_id}/files/{kind}", summary="Download a file of the map")
    def get_file(scene_id: str, kind: FileKind) -> FileResponse:
        job, result = _find_map(store, scene_id)
        if kind not in result["files"]:
            raise HTTPException(404, f"the map has no {kind}")
        name = result["files"][kind]
        return FileResponse(store.get_folder(job) / MAP / name, media_type=_MEDIA_TYPES[kind], filename=name)

    @app.get(
        "/scenes/{scene_id}/tiles/{z}/{x}/{y}.png", summary="A tile of the map or its scene", response_class=Response
    )
    def get_tile(
        scene_id: str,
        z: int,
        x: int,
        y: int,
        layer: Layer = "map",
        threshold: Annotated[float | None, Query(gt=0, le=1)] = None,
    ) -> Response:
        if not (0 <= z <= MAX_ZOOM and 0 <= x < 2**z and 0 <= y < 2**z):
            raise HTTPException(404, f"there is no tile {z}/{x}/{y}; zooms are 0 to {MAX_ZOOM}")
        job, result = _find_map(store, scene_id)
        folder = store.get_folder(job) / MAP
        tile = draw_tile(folder, result, layer=layer, position=(z, x, y), threshold=threshold)
        return Response(tile, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    return AccessControl(app, options)


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def get_page() -> FileResponse:
        return FileResponse(_STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    def get_docs() -> FileResponse:
        return FileResponse(_STATIC / "docs.html", headers={"Cache-Control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    def get_icon() -> FileResponse:
        return FileResponse(_STATIC / "icon.svg", media_type="image/svg+xml")

    app.mount("/static", StaticFiles(directory=_STATIC))


def _add_errors(app: FastAPI) -> None:
    """Gives all errors one form: `faults`, a list of sentences."""

    @app.exception_handler(FiresegError)
    def answer_fault(_: Request, error: FiresegError) -> JSONResponse:
        return JSONResponse({"faults": error.faults}, 400)

    @app.exception_handler(AnyHTTPException)
    def answer_http_error(_: Request, error: AnyHTTPException) -> JSONResponse:
        return JSONResponse({"faults": [error.detail]}, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    def answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        return JSONResponse({"faults": faults}, 422)


def _find(store: Store, scene_id: str) -> Job:
    if (job := store.get(scene_id)) is None:
        raise HTTPException(404, "no scene of that id; GET /scenes lists them")
    return job


def _find_map(store: Store, scene_id: str) -> tuple[Job, dict[str, Any]]:
    job = _find(store, scene_id)
    if (result := store.read_result(job)) is None:
        raise HTTPException(404, f"the scene has no map: it is {job.state}")
    return job, result


def _describe(job: Job, store: Store, supervisor: Supervisor) -> SceneStatus:
    progress = supervisor.get_progress(job)
    status = SceneStatus(
        id=job.id,
        name=job.name,
        state=job.state,
        created=job.created,
        started=job.started,
        ended=job.ended,
        position=store.get_position(job),
        progress=None if progress is None else Progress(stage=progress["stage"], share=progress["share"]),
        faults=list(job.faults),
    )
    if (result := store.read_result(job)) is not None:
        summary = result["summary"]
        status.has_fire, status.flags, status.date = summary["has_fire"], summary["flags"], summary["date"]
        status.max_probability, status.burned_ha = summary["max_probability"], summary["burned_ha"]
        status.burned_fraction = summary["burned_fraction"]
    return status


async def _read_json(request: Request) -> Any:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MAX_JSON:
            raise HTTPException(413, f"a request of at most {_MAX_JSON:,} bytes is expected")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FiresegError('body: not JSON; send {"path": "scene.tif"}') from error


def _read_path(content: Any, root: Path | None) -> str:
    if not isinstance(content, dict) or set(content) != {"path"} or not isinstance(content["path"], str):
        raise FiresegError('body: expected is {"path": "scene.tif"}, the name of a scene below --root')
    if root is None:
        raise FiresegError("path: this server has no folder of scenes; upload the scene, or start it with --root")
    return find_scene(root, content["path"]).as_posix()


def _check_single_scene(supervisor: Supervisor) -> None:
    """Refuses an upload for a model that compares two scenes; without it the worker would, after the upload."""
    bands = (supervisor.model or {}).get("bands", ())
    if split_pair(bands)[1]:
        raise FiresegError(
            "name: the model compares a scene with one before the fire, but an upload is one file; put both below "
            '--root as <name>.tif and <name>_PRE.tif, and send {"path": "<name>.tif"}'
        )


async def _save_upload(request: Request, path: Path, options: ServeOptions) -> None:
    limit = 1_000_000 * options.max_upload_mb
    too_large = HTTPException(413, f"{path.name}: more than {options.max_upload_mb:,} MB; upload a part of the scene")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_large
    size, loop = 0, asyncio.get_running_loop()
    try:
        with path.open("xb") as file:
            async with asyncio.timeout(_IDLE_S) as timeout:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > limit:
                        raise too_large
                    if shutil.disk_usage(path.parent).free < _SPARE_BYTES + len(chunk):
                        raise HTTPException(507, f"{path.name}: the disk of the server is full; delete some scenes")
                    file.write(chunk)
                    timeout.reschedule(loop.time() + _IDLE_S)
    except TimeoutError as error:
        raise HTTPException(408, f"{path.name}: nothing arrived for {_IDLE_S} seconds; upload it again") from error
    except OSError as error:
        raise HTTPException(507, f"{path.name}: cannot be written on the server ({error.strerror})") from error
    if size == 0:
        raise FiresegError(f"{path.name}: an empty file; upload a raster")
