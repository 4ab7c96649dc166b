"use strict";
// A figure as a file: large enough for a slide whatever the screen, with its title, its legend and a background.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const set = (id, properties) => window.dash_clientside.set_props(id, properties);
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const slug = (text) => text.replace(/[^\p{L}\p{N}.-]+/gu, "_").replace(/^_+|_+$/g, "");
  const LEAST = { width: 960, height: 600 };

  // The name of the file: which run, which view, and what is drawn there.
  const named = (place, run) => {
    const view = place.closest(".view")?.id ?? "tradeoff";
    return [run, view, place.getAttribute("aria-label")].map(slug).filter(Boolean).join("-").slice(0, 120);
  };

  // The heading of a file stands above what the figure itself writes at its top.
  const titled = (layout, text) => {
    const top = layout.margin?.t ?? layout.template?.layout?.margin?.t ?? 12;
    const title = { text: escaped(text), x: 0, xref: "container", xanchor: "left", y: 1, yref: "container", yanchor: "top" };
    return { title: { ...title, pad: { l: 16, t: 16 }, font: { size: 16 } }, margin: { l: 16, r: 24, b: 16, ...layout.margin, t: top + 44 } };
  };

  // A chart says by itself what it shows; above it stands only the run.
  const heading = (layout, label, run) =>
    layout.annotations?.[0]?.text?.startsWith(`<b>${escaped(label)}</b>`) ? run : `${label} · ${run}`;

  const legended = (traces) => traces.map((trace) => (trace.name ? trace : { ...trace, showlegend: false }));

  const save = async (name, format) => {
    const place = document.getElementById(`drawing-${name}`);
    const drawing = place?.querySelector(".js-plotly-plot");
    if (!drawing?.data?.length) return;
    const box = place.getBoundingClientRect();
    const run = document.querySelector("h1").textContent;
    const low = place.classList.contains("strip");
    const layout = {
      ...drawing.layout,
      ...titled(drawing.layout, heading(drawing.layout, place.getAttribute("aria-label"), run)),
      paper_bgcolor: dark.matches ? getComputedStyle(document.body).backgroundColor : "#ffffff",
      showlegend: drawing.data.some((trace) => trace.name && trace.showlegend !== false),
    };
    const size = {
      width: Math.max(box.width, LEAST.width),
      height: low ? 200 : Math.max(box.height, LEAST.height),
      scale: format === "png" ? 2 : 1,
    };
    try {
      const figure = { data: legended(drawing.data), layout };
      await window.Plotly.downloadImage(figure, { format, ...size, filename: named(place, run) });
    } catch (error) {
      set("problem", { children: `the figure could not be saved: ${error?.message ?? error}` });
      set("trouble", { hidden: false });
    }
  };

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("button[data-save]");
    if (button) save(button.dataset.figure, button.dataset.save);
  });
})();
