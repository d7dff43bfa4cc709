"use strict";

const STEPS = 250; // steps of the stored fire probability
const NAMES = {
  classes: "GeoTIFF, classes", fire: "GeoTIFF, probability", burned: "GeoPackage", geojson: "GeoJSON", picture: "PNG", summary: "JSON",
};
const STATES = { queued: "waiting", running: "mapping", done: "done", failed: "failed" };

const find = (id) => document.getElementById(id);
let scenes = [];
let uploads = []; // { name, share }
let selected = null; // id
let shown = null; // details of the selected scene, once they are drawn
let map = null, mapLayer = null, sceneLayer = null, outlines = null, basemap = null;

function create(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

function formatHa(ha) {
  if (ha === 0) return "0 ha";
  if (ha < 0.1) return "< 0.1 ha";
  return `${ha.toLocaleString("en", { maximumFractionDigits: ha < 100 ? 1 : 0 })} ha`;
}

function formatShare(share) {
  if (share === 0) return "0 %";
  if (share < 0.001) return "< 0.1 %";
  if (share > 0.999 && share < 1) return "> 99.9 %";
  return `${(100 * share).toFixed(1)} %`;
}

function showMessage(text) {
  find("message").textContent = text;
  find("message").hidden = !text;
}

async function request(path, options = {}) {
  const response = await fetch(path, options);
  if (response.status === 401) location.reload();
  if (response.ok) return response.status === 204 ? null : response.json();
  const content = await response.json().catch(() => ({}));
  throw new Error((content.faults || [`the server answered ${response.status}`]).join("; "));
}

function readSettings() {
  const settings = new URLSearchParams();
  for (const [name, value] of new FormData(find("settings"))) if (value !== "") settings.set(name, value);
  return settings;
}

function makeKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A connection that breaks is tried again with the same key, so that a scene is never added twice.
function send(file, key, onProgress, attempt = 1) {
  return new Promise((resolve, reject) => {
    const http = new XMLHttpRequest();
    const settings = readSettings();
    settings.set("name", file.name);
    http.open("POST", `/scenes?${settings}`);
    http.setRequestHeader("Content-Type", "application/octet-stream");
    http.setRequestHeader("Idempotency-Key", key);
    http.responseType = "json";
    http.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    http.onload = () => (http.status < 300 ? resolve(http.response)
      : reject(new Error(((http.response || {}).faults || [`the server answered ${http.status}`]).join("; "))));
    http.onerror = () => (attempt < 4
      ? setTimeout(() => resolve(send(file, key, onProgress, attempt + 1)), 1500 * attempt)
      : reject(new Error(`${file.name}: the connection broke; upload it again`)));
    http.send(file);
  });
}

async function upload(files) {
  showMessage("");
  for (const file of files) {
    const entry = { name: file.name, share: 0 };
    uploads.push(entry);
    drawScenes();
    try {
      const scene = await send(file, makeKey(), (share) => { entry.share = share; drawScenes(); });
      select(scene.id);
    } catch (error) {
      showMessage(error.message);
    }
    uploads = uploads.filter((other) => other !== entry);
    await refresh();
  }
}

async function pick(path) {
  showMessage("");
  try {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": makeKey() };
    const scene = await request(`/scenes?${readSettings()}`, { method: "POST", headers, body: JSON.stringify({ path }) });
    select(scene.id);
    await refresh();
  } catch (error) {
    showMessage(error.message);
  }
}

function describeState(scene) {
  if (scene.state === "queued") return `waiting, number ${scene.position}`;
  if (scene.state === "running" && scene.progress) {
    return `${scene.progress.stage}, ${Math.floor(100 * scene.progress.share)} %`;
  }
  if (scene.state !== "done") return STATES[scene.state];
  const flags = scene.flags.length ? `; caution: ${scene.flags.length} ${scene.flags.length > 1 ? "flags" : "flag"}` : "";
  const date = scene.date ? `, ${scene.date.slice(0, 10)}` : "";
  return `${scene.has_fire ? "fire found" : "no fire found"}${date}${flags}`;
}

function drawScenes() {
  const order = find("sort").value;
  const sorted = [...scenes];
  if (order === "burned_ha") sorted.sort((a, b) => (b.burned_ha ?? -1) - (a.burned_ha ?? -1));
  if (order === "name") sorted.sort((a, b) => a.name.localeCompare(b.name));
  const items = uploads.map((entry) => {
    const item = create("li", `${entry.name}: sending, ${Math.floor(100 * entry.share)} %`, "quiet");
    return item;
  });
  for (const scene of sorted) {
    const button = create("button");
    button.type = "button";
    button.dataset.id = scene.id;
    if (scene.id === selected) button.setAttribute("aria-current", "true");
    button.append(create("span", scene.name, "label"));
    button.append(create("span", scene.burned_ha === null ? "" : formatHa(scene.burned_ha), "ha"));
    const kind = scene.state === "failed" ? " bad" : scene.flags.length ? " caution" : "";
    button.append(create("span", describeState(scene), `state${kind}`));
    button.addEventListener("click", () => select(scene.id, true));
    const item = create("li");
    item.append(button);
    items.push(item);
  }
  const focused = document.activeElement && document.activeElement.dataset.id;
  find("scenes").replaceChildren(...items);
  if (focused) find("scenes").querySelector(`[data-id="${focused}"]`)?.focus();
  find("empty").hidden = items.length > 0;
}

function select(id, scroll = false) {
  selected = id;
  shown = null;
  drawScenes();
  drawDetails();
  if (scroll && matchMedia("(max-width: 800px)").matches) find("details").scrollIntoView({ behavior: "smooth" });
}

async function drawDetails() {
  const scene = scenes.find((one) => one.id === selected);
  find("details").hidden = !scene;
  if (!scene) return;
  find("name").textContent = scene.name;
  find("delete").disabled = scene.state === "running";
  const isWaiting = scene.state === "queued" || scene.state === "running";
  find("waiting").hidden = !isWaiting;
  find("stage").textContent = describeState(scene);
  if (scene.progress) find("progress").value = scene.progress.share;
  else find("progress").removeAttribute("value");
  find("faults").hidden = !scene.faults.length;
  find("faults").replaceChildren(...scene.faults.map((fault) => create("li", fault)));
  if (scene.state !== "done") {
    find("result").hidden = true;
  } else if (!shown || shown.id !== scene.id) {
    const details = await request(`/scenes/${scene.id}`);
    if (selected !== scene.id || (shown && shown.id === scene.id)) return;
    shown = details;
    find("result").hidden = false;
    drawResult(details);
  }
}

function drawResult(details) {
  const summary = details.summary;
  find("detection").classList.toggle("fire", details.has_fire);
  find("verdict").textContent = details.has_fire ? "Fire found" : "No fire found";
  find("burned-ha").textContent = formatHa(details.burned_ha);
  find("probability").textContent = details.max_probability.toFixed(2);
  find("fraction").textContent = formatShare(details.burned_fraction);
  const cloud = summary.cloud && summary.cloud.share ? ` (${formatShare(summary.cloud.share)} cloud)` : "";
  find("unknown").textContent = formatShare(summary.unknown) + cloud;
  find("flags").hidden = !details.flags.length;
  find("flags").replaceChildren(...details.flags.map((flag) => create("li", `Caution: ${flag}`)));
  find("downloads").replaceChildren(...Object.entries(details.files).map(([kind, address]) => {
    const link = create("a", NAMES[kind]);
    link.href = address;
    link.download = "";
    link.id = `download-${kind}`;
    return link;
  }));
  drawMap(details);
  resetThreshold();
  drawPolygons(details);
}

function drawMap(details) {
  const [west, south, east, north] = details.bounds;
  const bounds = L.latLngBounds([south, west], [north, east]);
  if (!map) {
    map = L.map("map", { maxZoom: 19, attributionControl: Boolean(basemap) });
    if (map.attributionControl) map.attributionControl.setPrefix(false);
    L.control.scale({ imperial: false }).addTo(map);
    if (basemap) L.tileLayer(basemap, { maxZoom: 19, attribution: new URL(basemap.replace("{s}.", "")).host }).addTo(map);
  }
  for (const layer of [sceneLayer, mapLayer, outlines]) if (layer) layer.remove();
  outlines = null;
  const options = { bounds, maxZoom: 19, minZoom: 1 };
  sceneLayer = L.tileLayer(`${details.tiles}?layer=scene`, options).addTo(map);
  mapLayer = L.tileLayer(details.tiles, { ...options, opacity: find("opacity").value / 100 }).addTo(map);
  map.invalidateSize();
  map.fitBounds(bounds);
}

async function drawPolygons(details) {
  const content = await request(`/scenes/${details.id}/polygons`);
  if (!shown || shown.id !== details.id) return;
  const rows = [];
  const layers = new Map();
  outlines = L.geoJSON(content, {
    style: { color: "#111", weight: 1.5, fill: false },
    onEachFeature: (feature, layer) => layers.set(feature, layer),
  }).addTo(map);
  for (const feature of content.features) {
    const { id, area_ha, mean_probability } = feature.properties;
    const row = create("tr");
    const cell = create("td");
    const button = create("button", String(id));
    button.type = "button";
    button.setAttribute("aria-label", `Show burned area ${id} on the map`);
    cell.append(button);
    row.append(cell, create("td", formatHa(area_ha), "number"), create("td", mean_probability.toFixed(2), "number"));
    row.addEventListener("click", () => map.fitBounds(layers.get(feature).getBounds(), { maxZoom: 16 }));
    rows.push(row);
  }
  const { count, dropped, dropped_ha } = details.summary.polygons;
  const more = count > rows.length ? `the ${rows.length} largest of ${count}` : String(count);
  const small = dropped ? `; ${dropped} smaller ones (${formatHa(dropped_ha)}) have no outline` : "";
  find("polygon-count").textContent = `${more}${small}`;
  find("polygons").hidden = !rows.length;
  find("polygons").tBodies[0].replaceChildren(...rows);
}

// Positions lie in the middle between two stored probabilities, so that the map redrawn at one of them is exact.
const getThreshold = () => (find("threshold").value - 0.5) / STEPS;

function resetThreshold() {
  find("threshold").value = Math.round(shown.summary.threshold * STEPS + 0.5);
  find("threshold-value").textContent = Number(shown.summary.threshold.toPrecision(3));
  mapLayer.setUrl(shown.tiles);
  if (outlines) outlines.setStyle({ opacity: 1 });
  find("redrawn").hidden = true;
  drawLegend(shown.classes);
}

function changeThreshold() {
  const step = Number(find("threshold").value);
  find("threshold-value").textContent = getThreshold().toFixed(3);
  const burned = shown.area_by_probability.slice(step).reduce((sum, ha) => sum + ha, 0);
  const unburned = shown.area_by_probability.slice(0, step).reduce((sum, ha) => sum + ha, 0);
  const colours = shown.classes.map((entry) => entry.colour);
  drawLegend([
    { label: "unburned", colour: colours[0], ha: unburned },
    { label: colours.length > 2 ? "burned, all grades" : "burned", colour: colours[1], ha: burned },
  ]);
  find("redrawn").textContent = `Redrawn at ${getThreshold().toFixed(3)}: ${formatHa(burned)} burned. `
    + `Numbers above, outlines and downloads are those of the map, at ${Number(shown.summary.threshold.toPrecision(3))}.`
    + (colours.length > 2 ? " Violet pixels burned only at this threshold; their grade is not known." : "");
  find("redrawn").hidden = false;
  if (outlines) outlines.setStyle({ opacity: 0.35 });
  clearTimeout(changeThreshold.timer);
  changeThreshold.timer = setTimeout(() => mapLayer.setUrl(`${shown.tiles}?threshold=${getThreshold().toFixed(4)}`), 120);
}

function drawLegend(classes) {
  const rows = classes.map((entry) => {
    const row = create("tr"), cell = create("td"), swatch = create("span", "", "swatch");
    swatch.style.backgroundColor = entry.colour;
    cell.append(swatch, ` ${entry.label}`);
    row.append(cell, create("td", formatHa(entry.ha), "number"));
    return row;
  });
  if (shown.summary.unknown) {
    const row = create("tr"), cell = create("td");
    cell.append(create("span", "", "swatch unknown"), " not seen");
    row.append(cell, create("td", `${formatShare(shown.summary.unknown)} of the scene`, "number"));
    rows.push(row);
  }
  find("legend").tBodies[0].replaceChildren(...rows);
  find("scene-colours").textContent = `Scene below the map: ${shown.scene_colours}.`;
}

async function refresh() {
  try {
    scenes = await request("/scenes");
    if (selected === null && scenes.length) selected = scenes.find((scene) => scene.state === "done")?.id ?? scenes[0].id;
    drawScenes();
    await drawDetails();
    if (!find("model").dataset.ready) await loadServer();
  } catch (error) {
    find("model").textContent = "the server does not answer; trying again";
    find("model").dataset.ready = "";
  }
}

async function loadServer() {
  const server = await request("/server");
  basemap = server.basemap;
  find("suffixes").textContent = `${server.suffixes.join(" ")}, at most ${server.max_upload_mb.toLocaleString("en")} MB`;
  find("root").hidden = !server.has_root;
  find("model").textContent = server.model ? `maps with ${server.model.run}` : "the model is being loaded";
  find("model").dataset.ready = server.model ? "yes" : "";
}

async function listRoot() {
  if (!find("root").open) return;
  const { scenes: names } = await request("/root");
  const part = find("filter").value.toLowerCase();
  const items = names.filter((name) => name.toLowerCase().includes(part)).map((name) => {
    const item = create("li"), button = create("button", name);
    button.type = "button";
    button.addEventListener("click", () => pick(name));
    item.append(button);
    return item;
  });
  find("root-list").replaceChildren(...(items.length ? items : [create("li", "No scene.", "quiet")]));
}

function start() {
  const drop = find("drop");
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) upload([...event.dataTransfer.files]);
  });
  find("file").addEventListener("change", () => { upload([...find("file").files]); find("file").value = ""; });
  find("sort").addEventListener("change", drawScenes);
  find("root").addEventListener("toggle", listRoot);
  find("filter").addEventListener("input", listRoot);
  find("threshold").addEventListener("input", changeThreshold);
  find("reset").addEventListener("click", resetThreshold);
  find("opacity").addEventListener("input", () => {
    find("opacity-value").textContent = `${find("opacity").value} %`;
    if (mapLayer) mapLayer.setOpacity(find("opacity").value / 100);
  });
  find("opacity-value").textContent = `${find("opacity").value} %`;
  find("delete").addEventListener("click", async () => {
    const scene = scenes.find((one) => one.id === selected);
    if (!scene || !confirm(`Delete ${scene.name} and its map?`)) return;
    try {
      await request(`/scenes/${scene.id}`, { method: "DELETE" });
      selected = null;
      shown = null;
      await refresh();
    } catch (error) {
      showMessage(error.message);
    }
  });
  const poll = async () => {
    if (!document.hidden) await refresh();
    const isBusy = scenes.some((scene) => scene.state === "queued" || scene.state === "running");
    setTimeout(poll, isBusy || !find("model").dataset.ready ? 1000 : 4000);
  };
  poll();
}

start();
