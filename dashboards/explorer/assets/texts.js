"use strict";
// Texts: as the server writes them, and as they are stored. They only ever become text nodes; nothing here builds HTML.
(() => {
  const at = (id) => document.getElementById(id);
  const set = (id, properties) => window.dash_clientside.set_props(id, properties);
  const unchanged = () => window.dash_clientside.no_update;
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  // Said aloud by a screen reader, so only at the beginning and at the end.
  const tell = (id, text) => {
    const place = at(id);
    if (place) place.textContent = text;
  };

  // ---- writing into the page

  // Control characters by their pictures: what a model wrote should be seen, and none of it should act.
  const visible = (text) =>
    text
      .replace(/\r\n?/g, "\n")
      .replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, (found) =>
        String.fromCharCode(found === "\u007f" ? 0x2421 : 0x2400 + found.charCodeAt(0)),
      );

  // At most once a frame, and only what is new: a text of 100 kB is not laid out again for each of its tokens.
  const pen = (place) => {
    const node = document.createTextNode("");
    place.replaceChildren(node);
    place.setAttribute("aria-busy", "true");
    let waiting = "";
    let due = 0;
    const paint = () => {
      due = 0;
      node.appendData(visible(waiting));
      waiting = "";
    };
    return {
      add(text) {
        waiting += text;
        due ||= requestAnimationFrame(paint);
      },
      end() {
        cancelAnimationFrame(due);
        paint();
        if (node.parentNode === place) place.removeAttribute("aria-busy");
      },
    };
  };

  const put = (place, text) => {
    place.textContent = visible(text);
    place.removeAttribute("aria-busy");
  };

  // ---- one text from the server

  const STOPPED = "stopped";

  // What stands in the lines of server-sent events that hold data. However it is left, the connection is given back.
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6).trim();
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  const refusal = async (response) => {
    const wait = response.headers.get("Retry-After");
    const later = wait ? `; try again in ${wait} s` : "";
    try {
      return (await response.json()).error.message;
    } catch {
      return `the server answered ${response.status} ${response.statusText}`.trim() + later;
    }
  };

  const open = async (who, asked, live, signal) => {
    const url = new URL(`../v1/${live.chat ? "chat/completions" : "completions"}`, location.href.split("#")[0]);
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ ...who, ...asked, stream: true });
    const response = await fetch(url, { method: "POST", headers, body, signal });
    if (!response.ok) throw new Error(await refusal(response));
    return response;
  };

  // Write one text into its place; what was written, or null where it did not come to an end, for which `state` says why.
  const write = async ({ who, place, state }, asked, live, signal) => {
    const ink = pen(place);
    state.textContent = "waiting";
    let text = "";
    let begun = false;
    try {
      const response = await open(who, asked, live, signal);
      let finish = null;
      for await (const data of events(response)) {
        if (data === "[DONE]") break;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        const choice = chunk.choices?.[0];
        const piece = choice?.delta?.content ?? choice?.text ?? "";
        finish = choice?.finish_reason ?? finish;
        text += piece;
        ink.add(piece);
        if (!begun) state.textContent = "writing";
        begun = true;
      }
      if (!finish) throw new Error("the server stopped before the end of the text");
      if (finish === "time") throw new Error("the server had no time left for the rest of the text");
      ink.end();
      if (text.trim() === "") put(place, "(an empty text)");
      state.textContent = finish === "length" ? "ended at the most tokens" : "";
      return text;
    } catch (error) {
      ink.end();
      if (signal.aborted) {
        // What the next ask writes here is its own to tell.
        if (signal.reason === STOPPED) state.textContent = "stopped";
        return null;
      }
      const lost = begun
        ? "the connection broke off before the end of the text; is the server still running?"
        : "the server cannot be reached; is it still running?";
      state.textContent = `⚠ ${error instanceof TypeError ? lost : error.message}`;
      return null;
    }
  };

  // ---- asking, one thing at a time: a browser holds six connections to a server, and the page needs one itself

  let running = null;

  const replace = (kind, teller) => {
    // Columns that the next ask does not write into say that they were stopped.
    running?.control.abort(running.kind === kind ? "replaced" : STOPPED);
    running = { kind, teller, control: new AbortController() };
    return running;
  };

  const stop = () => {
    running?.control.abort(STOPPED);
    if (!running) tell("reading-state", "Nothing is being written.");
    return unchanged();
  };

  // The texts of all columns, null where one did not come to its end; or null if another ask has taken the turn.
  const all = async (kind, teller, columns, asked, live) => {
    const mine = replace(kind, teller);
    tell(teller, `Writing ${columns.length} texts …`);
    const texts = await Promise.all(columns.map((column) => write(column, asked, live, mine.control.signal)));
    if (running !== mine) return null;
    running = null;
    const whole = texts.filter((text) => text !== null).length;
    if (mine.control.signal.aborted) tell(teller, "Stopped.");
    else if (whole === texts.length) tell(teller, `All ${whole} texts are written.`);
    else tell(teller, `${whole} of ${texts.length} texts came to their end; the others say why they did not.`);
    return texts;
  };

  const run = async (kind, prompt, asked, columns, live) => {
    set(kind === "two" ? "scores" : "five-scores", { children: null }); // those of other texts
    set("said", { data: null });
    const texts = await all(kind, "reading-state", columns, asked, live);
    if (!texts || texts.every((text) => text === null)) return;
    set("said", { data: { kind, prompt, texts, heads: columns.map(({ head }) => head), who: columns.map((c) => c.who) } });
  };

  // A sentence about what cannot be asked, or nothing.
  const mistake = (prompt, seed, tokens, heat, live) => {
    const within = (value, low, high) => typeof value === "number" && value >= low && value <= high;
    if (!prompt?.trim()) return "Type a prompt first.";
    if (!within(seed, 0, 2 ** 31) || !Number.isInteger(seed)) return "The seed is a whole number from 0 on.";
    if (!within(tokens, 1, live.max_tokens) || !Number.isInteger(tokens)) {
      return `At most tokens is a whole number from 1 to ${live.max_tokens}.`;
    }
    return within(heat, 0, 2) ? "" : "The temperature is a number from 0 to 2.";
  };

  const request = (prompt, seed, tokens, heat, live) => ({
    ...(live.chat ? { messages: [{ role: "user", content: prompt }] } : { prompt }),
    seed,
    max_tokens: tokens,
    temperature: heat,
  });

  const refused = (...asked) => {
    const sentence = mistake(...asked);
    if (sentence) tell("reading-state", `⚠ ${sentence}`);
    return sentence;
  };

  const mixture = ({ weights, policy }) => ({ model: "moalign", weights, policy });

  const column = (letter) => ({ place: at(`text-${letter}`), state: at(`state-${letter}`), head: letter.toUpperCase() });

  const ask = (_clicks, prompt, seed, tokens, heat, plan, other, kept, live) => {
    if (refused(prompt, seed, tokens, heat, live)) return unchanged();
    if (!plan?.policy) {
      tell("reading-state", "⚠ No adapter has been measured yet, so that there is no trade-off to ask.");
      return unchanged();
    }
    const columns = [
      { ...column("a"), who: mixture(plan) },
      { ...column("b"), who: other === "kept" && kept ? mixture(kept) : { model: other } },
    ];
    run("two", prompt, request(prompt, seed, tokens, heat, live), columns, live);
    return unchanged();
  };

  // The places of several texts, each under a heading, in the grid.
  const boxes = (heads) => {
    const made = heads.map((head) => {
      const box = element("article", "answer");
      const heading = element("h4", "", head);
      const place = element("p", "said");
      const state = element("p", "about state");
      Object.assign(place, { dir: "auto", tabIndex: 0, ariaLabel: `Text of ${head}` });
      box.append(heading, place, state);
      return { box, place, state, head };
    });
    at("five").replaceChildren(...made.map(({ box }) => box));
    return made;
  };

  const askFive = (_clicks, prompt, seed, tokens, heat, points, live) => {
    if (refused(prompt, seed, tokens, heat, live)) return unchanged();
    if (!points?.length) {
      tell("reading-state", "⚠ No adapter has been measured yet, so that there is no front to ask.");
      return unchanged();
    }
    const places = boxes(points.map(({ label }) => label));
    const columns = places.map((each, i) => ({ ...each, who: { model: points[i].model } }));
    run("five", prompt, request(prompt, seed, tokens, heat, live), columns, live);
    return unchanged();
  };

  // ---- stored texts

  const clear = () => {
    for (const letter of ["a", "b"]) {
      const { place, state } = column(letter);
      put(place, "");
      state.textContent = "";
    }
    at("five").replaceChildren();
    tell("reading-state", "");
  };

  const source = (chosen) => {
    running?.control.abort(STOPPED);
    clear();
    return chosen;
  };

  const stored = (found, chosen) => {
    if (!found || chosen !== "stored") return unchanged();
    const grid = boxes(found.five.map(({ head }) => head));
    const places = [column("a"), column("b"), ...grid];
    [...found.two, ...found.five].forEach(({ text, state }, i) => {
      put(places[i].place, text);
      places[i].state.textContent = state;
    });
    return unchanged();
  };

  // ---- texts for the picks, on a prompt of one's own

  let turns = 0; // each asking has another seed, so that other texts come

  const askOwn = (_clicks, prompt, points, live) => {
    const tokens = Math.min(live.usual, live.max_tokens);
    const wrong = points?.length > 1 ? mistake(prompt, turns, tokens, 1, live) : "At least two points must be measured.";
    if (wrong) {
      tell("own-state", `⚠ ${wrong}`);
      return unchanged();
    }
    const columns = points.map(({ model }) => ({ who: { model }, place: element("p"), state: element("p") }));
    const asked = request(prompt, turns, tokens, 1, live);
    turns += 1;
    all("own", "own-state", columns, asked, live).then((texts) => {
      const written = (texts ?? []).filter((text) => text?.trim());
      if (written.length) set("own-said", { data: { prompt, texts: written } });
      const failed = columns.find(({ state }) => state.textContent.startsWith("⚠"));
      if (texts && failed) tell("own-state", failed.state.textContent);
    });
    return unchanged();
  };

  const stopOwn = () => {
    if (running?.kind === "own") running.control.abort(STOPPED);
    return unchanged();
  };

  // What had the focus is gone when there is nothing left to pick; what is known now comes next.
  const ended = (hidden) => {
    const held = document.activeElement;
    if (hidden && held && (held === document.body || held.closest("#pick-pair"))) at("pick-state")?.focus();
    return unchanged();
  };

  const texts = { ask, askFive, stop, source, stored, askOwn, stopOwn, ended };
  window.dash_clientside = Object.assign({}, window.dash_clientside, { texts });
})();
