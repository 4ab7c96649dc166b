"use strict";
// Figures, views and buttons. Text only ever goes through textContent; nothing here builds HTML from a string.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 64rem)");
  const small = matchMedia("(max-width: 40rem)");
  const set = (id, properties) => window.dash_clientside.set_props(id, properties);

  // ---- figures

  // A copy in which every colour that has a sharper one on this background is exchanged for it.
  const recoloured = (value, tones, key = "") => {
    if (typeof value === "string") return /color/i.test(key) ? tones[value] ?? value : value;
    if (Array.isArray(value)) {
      return typeof value.at(-1) === "number" ? value : value.map((item) => recoloured(item, tones, key));
    }
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, recoloured(item, tones, name)]));
  };

  // The current trade-off is a trace that knows which objectives its axes show.
  const placed = (trace, values) => {
    const axes = trace.meta?.axes;
    if (!axes) return trace;
    const places = axes.map((column, i) => ["xyz"[i], [values ? values[column] : null]]);
    return { ...trace, ...Object.fromEntries(places) };
  };

  const aside = ({ eye, center }) => ({
    eye: { x: 1.3 * eye.x, y: 1.3 * eye.y, z: 1.3 * eye.z },
    center: { x: 0.12, y: -0.12, ...center },
  });

  const draw = (figure, plan, _scheme, schemes) => {
    const { triggered, outputs_list } = window.dash_clientside.callback_context;
    const moved = triggered.length && triggered.every(({ prop_id }) => prop_id === "plan.data");
    if (!figure || (moved && !figure.data.some(({ meta }) => meta?.axes))) return window.dash_clientside.no_update;
    const { data: traces, layout } = recoloured(figure, schemes[dark.matches ? "dark" : "light"]);
    const data = traces.map((trace) => placed(trace, plan?.values));
    const { name } = outputs_list.id;
    // A sentence in place of a drawing needs less room.
    document.getElementById(`drawing-${name}`)?.classList.toggle("blank", !data.length);
    // On a phone a finger that moves over a figure means to scroll the page, and the box of a scene has to stand back,
    // to the right, for the words on its left.
    if (small.matches && !layout.scene) layout.dragmode = false;
    if (small.matches && layout.scene) layout.scene.camera = aside(layout.scene.camera);
    return { data, layout: { ...layout, uirevision: "kept" } };
  };

  // ---- the page

  const views = () => [...document.querySelectorAll("main > .view")].map((view) => view.id);

  const show = () => {
    const found = views();
    if (!found.length) return;
    const name = location.hash.slice(1);
    const shown = found.includes(name) ? name : document.documentElement.dataset.view ?? found[0];
    document.documentElement.dataset.view = shown;
    document.querySelectorAll("nav a").forEach((link) => {
      if (link.id === `to-${shown}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    window.dispatchEvent(new Event("resize"));
  };

  const fold = () => {
    const panel = document.getElementById("tradeoff");
    if (panel) panel.open = !narrow.matches;
  };

  const begin = () => {
    if (!document.querySelector("main > .view")) return;
    waiting.disconnect();
    show();
    fold();
    document.title = `${document.querySelector("h1").textContent} · moalign explorer`;
  };
  const waiting = new MutationObserver(begin);
  waiting.observe(document.documentElement, { childList: true, subtree: true });

  window.addEventListener("hashchange", () => {
    show();
    window.scrollTo(0, 0);
  });
  narrow.addEventListener("change", fold);
  dark.addEventListener("change", () => set("scheme", { data: dark.matches ? "dark" : "light" }));
  small.addEventListener("change", () => set("scheme", { data: String(small.matches) }));

  // A page that nobody looks at does not ask.
  document.addEventListener("visibilitychange", () =>
    ["beat", "look"].forEach((id) => set(id, { disabled: document.hidden })),
  );

  document.addEventListener("click", ({ target }) => {
    if (target.closest?.("#dismiss")) set("trouble", { hidden: true });
  });

  // Dash tells nobody when its server is gone. What was said is taken back at the first beat that is answered again.
  const ask = window.fetch;
  window.fetch = async (...given) => {
    try {
      return await ask(...given);
    } catch (error) {
      const told = "The server does not answer; is it still running? What stands here is what was last known.";
      if (error instanceof TypeError) set("gone", { children: told, hidden: false });
      throw error;
    }
  };

  const spoken = document.createElement("p");
  spoken.className = "unseen";
  spoken.setAttribute("role", "status");
  document.body.append(spoken);

  document.addEventListener("click", async ({ target }) => {
    const button = target.closest?.("button[data-copy]");
    if (!button) return;
    const place = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(place.textContent);
      button.textContent = "Copied";
    } catch {
      // No permission, or a page that did not come over https: there is no clipboard then.
      getSelection().selectAllChildren(place);
      button.textContent = "Selected: press Ctrl-C";
    }
    spoken.textContent = button.textContent; // the button's own label is what it copies
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });

  // Dash calls boxes the options of a list, which hides the boxes themselves from a screen reader.
  const asBoxes = () => {
    for (const list of document.querySelectorAll(".dash-checklist, .dash-radioitems")) {
      for (const part of [list, ...list.querySelectorAll("[role=option]")]) {
        part.removeAttribute("role");
        part.removeAttribute("aria-selected");
      }
    }
  };

  // Requests go to the server that the page came from, also behind a proxy that puts it under another path.
  const place = (_schemes, live) => {
    asBoxes();
    return live.on ? { ...live, origin: new URL("..", location.href).href.replace(/\/$/, "") } : live;
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, { explorer: { draw, place } });
})();
