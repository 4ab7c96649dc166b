"use strict";
// Text from models and data sets only ever goes through textContent; nothing here builds HTML from a string.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  const read = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");
  const schemes = read("schemes");
  const texts = read("texts-data");

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // ---- figures

  const figures = [...document.querySelectorAll("script.figure-data")].map((script) => ({
    place: script.previousElementSibling,
    figure: JSON.parse(script.textContent),
  }));

  // A copy in which every colour that has a sharper one on this background is exchanged for it.
  const recoloured = (value, tones, key = "") => {
    if (typeof value === "string") return /color/i.test(key) ? tones[value] ?? value : value;
    if (Array.isArray(value)) return value.map((item) => recoloured(item, tones, key));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, recoloured(item, tones, name)]));
  };

  const draw = ({ place, figure }) => {
    const { data, layout } = recoloured(figure, schemes[dark.matches ? "dark" : "light"]);
    // On a phone a finger that moves over a figure means to scroll the page.
    if (narrow.matches && !layout.scene) layout.dragmode = false;
    if (place.classList.contains("front")) layout.annotations = [...(layout.annotations ?? []), ...badges(data)];
    Plotly.react(place, data, layout, {
      responsive: true,
      displayModeBar: false,
    });
  };

  const drawAll = () => figures.forEach(draw);

  // Which points are being read is shown on the front, as A and B.
  const badges = (data) =>
    chosen().flatMap(([letter, adapter]) => {
      const trace = data.find((item) => item.customdata?.includes(adapter));
      if (!trace) return [];
      const at = trace.customdata.indexOf(adapter);
      return [{
        x: trace.x[at], y: trace.y[at], text: letter, ax: 20, ay: -20, arrowhead: 0, arrowwidth: 1, standoff: 6,
        arrowcolor: "#8b8f96", font: { size: 12 }, bgcolor: getComputedStyle(document.body).backgroundColor,
      }];
    });

  // ---- texts

  const selects = ["voice-a", "voice-b"].map((id) => document.getElementById(id));
  const chosen = () =>
    texts && selects[0] ? selects.map((select, i) => ["AB"[i], texts.voices[Number(select.value)].adapter]) : [];
  let shown = 4;

  const scoreRows = (text, other) => {
    const list = element("div", "scores");
    const { colours } = document.getElementById("reading").dataset;
    text.scores.forEach((score, i) => {
      if (!score) return;
      const track = element("span", "track");
      const dot = track.appendChild(element("i"));
      dot.style.left = `${100 * score.place}%`;
      dot.style.background = `var(--objective-${i % colours})`;
      const higher = other?.scores[i] && score.value > other.scores[i].value;
      const value = element("span", "value", score.shown);
      const mark = value.appendChild(element("span", "higher", higher ? "▲" : ""));
      if (higher) mark.setAttribute("aria-label", "higher");
      list.append(element("span", "", texts.objectives[i]), track, value);
    });
    return list;
  };

  const answer = (voice, letter, text, other) => {
    const box = element("div", "answer");
    box.append(element("p", "who", `${letter}: ${texts.voices[voice].label}`));
    if (!text) box.append(element("p", "said none", "No text was sampled here."));
    else if (text.response.trim() === "") box.append(element("p", "said none", "(an empty response)"));
    else box.append(element("p", "said", text.response));
    if (text) box.append(scoreRows(text, other));
    return box;
  };

  const exchange = (prompt, voices) => {
    const box = element("article", "exchange");
    box.append(element("h3", "", texts.prompts[prompt]));
    const said = voices.map((voice) => texts.texts.filter((t) => t.prompt === prompt && t.voice === voice));
    for (let i = 0; i < Math.max(said[0].length, said[1].length, 1); i++) {
      const pair = element("div", "answers");
      pair.append(answer(voices[0], "A", said[0][i], said[1][i]), answer(voices[1], "B", said[1][i], said[0][i]));
      box.append(pair);
    }
    return box;
  };

  const readAloud = () => {
    const voices = selects.map((select) => Number(select.value));
    const pages = texts.prompts.slice(0, shown).map((_, i) => exchange(i, voices));
    document.getElementById("reading").replaceChildren(...pages);
    const more = document.getElementById("more");
    more.hidden = shown >= texts.prompts.length;
    more.textContent = `Show all ${texts.prompts.length} prompts`;
  };

  const choose = () => {
    readAloud();
    figures.filter(({ place }) => place.classList.contains("front")).forEach(draw);
  };

  if (selects[0]) {
    selects.forEach((select, i) => {
      texts.voices.forEach((voice, at) => select.add(new Option(voice.label, at)));
      select.value = String(texts.first[i]);
      select.addEventListener("change", choose);
    });
    document.getElementById("more").addEventListener("click", () => {
      shown = texts.prompts.length;
      readAloud();
    });
    readAloud();
  }

  drawAll();
  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);

  figures.forEach(({ place }) =>
    place.on("plotly_click", ({ points }) => {
      const voice = texts?.voices.findIndex(({ adapter }) => adapter === points[0].customdata) ?? -1;
      if (voice < 0) return;
      selects[0].value = String(voice);
      choose();
      document.getElementById("texts").scrollIntoView();
    }),
  );

  // ---- the table of points

  document.querySelectorAll("th .sort").forEach((button) =>
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const body = heading.closest("table").tBodies[0];
      const down = heading.getAttribute("aria-sort") !== "descending";
      const key = (row) => row.cells[heading.cellIndex].dataset.key;
      const rows = [...body.rows].sort((one, other) => {
        if (key(one) === "" || key(other) === "") return (key(one) === "") - (key(other) === "");
        return (down ? -1 : 1) * (Number(key(one)) - Number(key(other)));
      });
      heading.parentElement.querySelectorAll("[aria-sort]").forEach((cell) => cell.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    }),
  );
})();
