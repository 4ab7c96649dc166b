"use strict";
// Text from models and data sets only ever goes through textContent; nothing here builds HTML from a string.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 64rem)");
  const small = matchMedia("(max-width: 40rem)");
  const set = (id, properties) => window.dash_clientside.set_props(id, properties);
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

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

  const draw = (figure, plan, _scheme, schemes) => {
    const { triggered, outputs_list } = window.dash_clientside.callback_context;
    const moved = triggered.length && triggered.every(({ prop_id }) => prop_id === "plan.data");
    if (!figure || (moved && !figure.data.some(({ meta }) => meta?.axes))) return window.dash_clientside.no_update;
    const { data: traces, layout } = recoloured(figure, schemes[dark.matches ? "dark" : "light"]);
    const data = traces.map((trace) => placed(trace, plan?.values));
    const { name } = outputs_list.id;
    // A sentence in place of a drawing needs less room.
    document.getElementById(`drawing-${name}`)?.classList.toggle("blank", !data.length);
    // On a phone a finger that moves over a figure means to scroll the page.
    if (small.matches && !layout.scene) layout.dragmode = false;
    return { data, layout: { ...layout, uirevision: "kept" } };
  };

  const save = (name, format) => {
    const drawing = document.querySelector(`#drawing-${CSS.escape(name)} .js-plotly-plot`);
    if (!drawing) return;
    const { width, height } = drawing.getBoundingClientRect();
    const background = getComputedStyle(document.body).backgroundColor;
    const layout = { ...drawing.layout, paper_bgcolor: background };
    const run = document.querySelector("h1").textContent.replace(/[^\w.-]+/g, "_");
    window.Plotly.downloadImage(
      { data: drawing.data, layout },
      { format, width, height, scale: format === "png" ? 2 : 1, filename: `${run}-${name}` },
    );
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

  document.addEventListener("click", async ({ target }) => {
    const button = target.closest?.("button[data-save], button[data-copy]");
    if (!button) return;
    if (button.dataset.save) return save(button.dataset.figure, button.dataset.save);
    const text = document.getElementById(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
      button.textContent = "Selected: press Ctrl-C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });

  // ---- texts, as the server writes them

  let running = null;

  const stop = () => {
    running?.abort();
    return window.dash_clientside.no_update;
  };

  // The lines of server-sent events that hold data.
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6).trim();
    }
  }

  const reason = async (response) => {
    try {
      return (await response.json()).error.message;
    } catch {
      return `the server answered ${response.status}`;
    }
  };

  // Write one text into its place; what was written, or null where it did not come to an end.
  const write = async (who, asked, live, place, state, signal) => {
    place.textContent = "";
    state.textContent = "waiting";
    let text = "";
    try {
      const body = { ...who, ...asked, stream: true };
      const url = new URL(`../v1/${live.chat ? "chat/completions" : "completions"}`, location.href.split("#")[0]);
      const headers = { "Content-Type": "application/json" };
      const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal });
      if (!response.ok) throw new Error(await reason(response));
      let finish = null;
      for await (const data of events(response)) {
        if (data === "[DONE]") break;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        const choice = chunk.choices?.[0];
        text += choice?.delta?.content ?? choice?.text ?? "";
        finish = choice?.finish_reason ?? finish;
        place.textContent = text;
        state.textContent = "writing";
      }
      if (!finish) throw new Error("the server stopped before the end of the text");
      if (text.trim() === "") place.textContent = "(an empty text)";
      state.textContent = finish === "length" ? "ended at the most tokens" : "";
      return text;
    } catch (error) {
      const gone = error instanceof TypeError ? "the server cannot be reached; is it still running?" : error.message;
      state.textContent = error.name === "AbortError" ? "stopped" : `⚠ ${gone}`;
      return null;
    }
  };

  const request = (prompt, seed, tokens, heat, live) => ({
    ...(live.chat ? { messages: [{ role: "user", content: prompt }] } : { prompt }),
    seed: Math.round(seed ?? 0),
    max_tokens: Math.round(tokens ?? 128),
    temperature: heat ?? 1,
  });

  const run = async (kind, prompt, asked, columns, live) => {
    running?.abort();
    const mine = (running = new AbortController());
    set(kind === "two" ? "scores" : "five-scores", { children: null }); // those of other texts
    set("said", { data: null });
    const texts = await Promise.all(
      columns.map(({ who, place, state }) => write(who, asked, live, place, state, mine.signal)),
    );
    if (running !== mine || texts.includes(null)) return;
    set("said", { data: { kind, prompt, texts, heads: columns.map(({ head }) => head) } });
  };

  const mixture = ({ weights, policy }) => ({ model: "moalign", weights, policy });

  const ask = (_clicks, prompt, seed, tokens, heat, plan, other, kept, live) => {
    const [a, b] = ["a", "b"].map((letter) => ({
      place: document.getElementById(`text-${letter}`),
      state: document.getElementById(`state-${letter}`),
      head: letter.toUpperCase(),
    }));
    const columns = [
      { ...a, who: mixture(plan) },
      { ...b, who: other === "kept" && kept ? mixture(kept) : { model: other } },
    ];
    run("two", prompt, request(prompt, seed, tokens, heat, live), columns, live);
    return window.dash_clientside.no_update;
  };

  const askFive = (_clicks, prompt, seed, tokens, heat, points, live) => {
    const columns = (points ?? []).map(({ model, label }) => {
      const box = element("article", "answer");
      const place = element("p", "said");
      const state = element("p", "about");
      box.append(element("h3", "", label), place, state);
      return { box, place, state, head: label, who: { model } };
    });
    document.getElementById("five").replaceChildren(...columns.map(({ box }) => box));
    run("five", prompt, request(prompt, seed, tokens, heat, live), columns, live);
    return window.dash_clientside.no_update;
  };

  // Requests go to the server that the page came from, also behind a proxy that puts it under another path.
  const place = (_schemes, live) =>
    live.on ? { ...live, origin: new URL("..", location.href).href.replace(/\/$/, "") } : live;

  window.dash_clientside = Object.assign({}, window.dash_clientside, { explorer: { draw, ask, askFive, stop, place } });
})();
