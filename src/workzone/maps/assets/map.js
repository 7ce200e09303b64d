"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const features = data.events.features;
  const order = ["active", "unconfirmed", "expired", "cleared"];
  const colour = (status) => getComputedStyle(document.documentElement).getPropertyValue("--" + status).trim();
  const map = L.map("map", { preferCanvas: true, attributionControl: Boolean(data.attribution) });
  if (data.tiles) L.tileLayer(data.tiles, { attribution: data.attribution, maxZoom: 19 }).addTo(map);
  L.control.scale({ imperial: false }).addTo(map);
  const layers = Object.fromEntries(order.map((s) => [s, L.layerGroup()]));
  const day = (text) => text.slice(0, 16).replace("T", " ");
  const body = document.querySelector("tbody");
  const shown = new Set(["active", "unconfirmed"]);

  const cell = (row, text) => { const td = document.createElement("td"); td.textContent = text; row.append(td); return td; };
  const dot = (status) => { const s = document.createElement("span"); s.className = "dot"; s.style.background = `var(--${status})`; return s; };

  const popup = (p) => {
    const list = document.createElement("dl");
    const rows = { status: p.status, confidence: p.confidence.toFixed(2), "first seen": day(p.start), "last seen": day(p.last_seen),
      "passes with roadwork": p.passes, "passes without": p.passes_without_roadwork, "left open": p.abstentions,
      "checked by a person": p.checked_by_a_person ? "yes" : "no" };
    for (const [name, value] of Object.entries(rows)) {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = name; dd.textContent = value; list.append(dt, dd);
    }
    return list;
  };

  const MOST_ROWS = 500;
  features.forEach((f, i) => {
    const p = f.properties;
    const points = f.geometry.coordinates.map(([x, y]) => [y, x]);
    const style = { color: colour(p.status), weight: 4, opacity: 0.9 };
    const group = L.featureGroup();
    if (points.length > 1) L.polyline(points, style).addTo(group);
    L.circleMarker(points[Math.floor(points.length / 2)], { ...style, radius: 6, weight: 2, fillOpacity: 0.5 }).addTo(group);
    group.bindPopup(() => popup(p));
    group.addTo(layers[p.status]);
    if (i >= MOST_ROWS) return;
    const row = document.createElement("tr");
    row.tabIndex = 0;
    row.dataset.status = p.status;
    const first = cell(row, p.status);
    first.prepend(dot(p.status));
    cell(row, p.confidence.toFixed(2));
    cell(row, p.passes);
    cell(row, p.start.slice(0, 10));
    cell(row, p.last_seen.slice(0, 10));
    const show = () => { map.fitBounds(group.getBounds().pad(0.5), { maxZoom: 17 }); group.openPopup(); };
    row.addEventListener("click", show);
    row.addEventListener("keydown", (e) => { if (e.key === "Enter") show(); });
    body.append(row);
  });

  const refresh = () => {
    for (const s of order) shown.has(s) ? layers[s].addTo(map) : layers[s].remove();
    for (const row of body.rows) row.hidden = !shown.has(row.dataset.status);
  };
  const filters = document.querySelector(".filters");
  for (const s of order) {
    const count = features.filter((f) => f.properties.status === s).length;
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox"; box.checked = shown.has(s);
    box.addEventListener("change", () => { box.checked ? shown.add(s) : shown.delete(s); refresh(); });
    label.append(box, dot(s), `${s} (${count})`);
    filters.append(label);
  }
  document.getElementById("counts").textContent =
    `${features.length} ${features.length === 1 ? "place" : "places"}. Confidence (0 to 1) ranks places by their evidence; it is not a certified probability.` +
    (data.tiles ? "" : " No streets are drawn: none were given (--tiles).");
  const all = L.featureGroup(order.flatMap((s) => layers[s].getLayers()));
  if (features.length) map.fitBounds(all.getBounds().pad(0.2), { maxZoom: 16 }); else map.setView([20, 0], 2);
  refresh();
  document.documentElement.dataset.ready = String(features.length);
})();
