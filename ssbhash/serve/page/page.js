"use strict";

const K = 20;
const find = (id) => document.getElementById(id);
const state = { stats: null, asked: 0 };

// Elements

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function draw(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// The service

async function call(path, body, type = "application/json") {
  const headers = { Accept: "application/json" };
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { headers };
  if (body !== undefined) {
    options.method = "POST";
    headers["Content-Type"] = type;
    options.body = type === "application/json" ? JSON.stringify(body) : body;
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer.");
  }
  const isJson = (answer.headers.get("Content-Type") || "").startsWith("application/json");
  const content = isJson ? await answer.json() : {};
  if (answer.status === 401) {
    find("unlock").hidden = false;
    find("ask").hidden = true;
    find("key").focus();
    if (!key) throw new Error("");
  }
  if (!answer.ok) throw new Error(content.detail || `The service answers with status ${answer.status}.`);
  return content;
}

async function picture(address) {
  const key = sessionStorage.getItem("key");
  if (!key) return address;
  const answer = await fetch(address, { headers: { Authorization: `Bearer ${key}` } });
  return answer.ok ? new Promise((resolve) => answer.blob().then((blob) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(blob);
  })) : "";
}

// Codes and items

function bitsOf(code) {
  const bits = [];
  for (let place = 0; place < code.length; place += 2) {
    const byte = parseInt(code.slice(place, place + 2), 16);
    for (let bit = 0; bit < 8; bit++) bits.push((byte >> bit) & 1);
  }
  return bits.slice(0, state.stats.index.n_bits);
}

function pattern(code, other) {
  const bits = bitsOf(code);
  const others = other ? bitsOf(other) : bits;
  const columns = Math.min(bits.length, 16);
  const size = 10;
  const rows = Math.ceil(bits.length / columns);
  const differing = bits.filter((bit, place) => bit !== others[place]).length;
  const told = other ? `Code, ${differing} of ${bits.length} bits differ` : `Code of ${bits.length} bits`;
  const svg = draw("svg", {
    class: "code", role: "img", "aria-label": told, viewBox: `0 0 ${columns * size} ${rows * size}`,
    width: columns * size, height: rows * size,
  });
  bits.forEach((bit, place) => svg.append(draw("rect", {
    x: (place % columns) * size + 1.5, y: Math.floor(place / columns) * size + 1.5, width: size - 3, height: size - 3,
    class: (bit ? "one" : "") + (bit === others[place] ? "" : " differs"),
  })));
  svg.prepend(draw("title", {}, told));
  return svg;
}

function probabilities(classes) {
  if (!classes) return null;
  const best = Object.entries(classes).sort((a, b) => b[1] - a[1]).slice(0, 3).filter(([, p], rank) => rank === 0 || p >= 0.01);
  const list = make("div", { className: "classes" });
  list.setAttribute("aria-label", "Class probabilities");
  for (const [name, probability] of best) {
    const percent = `${Math.round(100 * probability)} %`;
    const meter = make("meter", { max: 1, value: probability }, percent);
    meter.setAttribute("aria-label", name);
    list.append(make("span", { className: "name", title: name }, name), meter, make("span", {}, percent));
  }
  return list;
}

function shown(item, queryCode) {
  const body = make("div");
  if (item.text) body.append(make("p", { className: "text" }, item.text));
  const about = make("p", { className: "meta" });
  if (item.id !== undefined) about.append(`id ${item.id} `);
  if (item.label) about.append(make("span", { className: "label" }, item.label));
  body.append(about);
  const classes = probabilities(item.classes);
  if (classes) body.append(classes);
  body.append(pattern(item.code, queryCode));
  const element = make("div", { className: "item" });
  if (item.thumbnail) {
    const image = make("img", { alt: item.label ? `Picture: ${item.label}` : `Picture of item ${item.id}`, loading: "lazy" });
    picture(item.thumbnail).then((address) => { image.src = address; });
    element.append(image);
  }
  element.append(body);
  return element;
}

function drawHistogram(counts, n) {
  const last = counts.length - 1;
  const most = Math.max(...counts, 1);
  const svg = draw("svg", { viewBox: `0 0 ${counts.length} 40`, preserveAspectRatio: "none", role: "img" });
  counts.forEach((count, distance) => {
    const height = count ? Math.max(0.6, (38 * count) / most) : 0;
    svg.append(draw("rect", { x: distance + 0.1, y: 40 - height, width: 0.8, height },
      draw("title", {}, `${count.toLocaleString()} at distance ${distance}`)));
  });
  let seen = 0;
  const middle = counts.findIndex((count) => (seen += count) * 2 >= n);
  const told = `Distances of ${n.toLocaleString()} items, 0 to ${last} bits; half of them within ${middle}.`;
  svg.setAttribute("aria-label", told);
  find("histogram").replaceChildren(svg);
  const total = state.stats.index.n;
  find("histogram-caption").textContent = n < total ? `A sample. ${told}` : told;
}

// Asking

function size(nBytes) {
  return nBytes < 1e6 ? `${Math.ceil(nBytes / 1e3)} kB` : `${(nBytes / 1e6).toFixed(1)} MB`;
}

function idOf(text) {
  return /^\d{1,15}$/.test(text) ? Number(text) : text;
}

function readsTexts() {
  return state.stats.model !== null && state.stats.model.reads === "texts";
}

async function details(ids) {
  return ids.length ? (await call("items", { ids })).items : [];
}

// A question is {ids: [id]}, {texts: [text]}, {vectors: [...]}, {codes: [...]} or a .npy file.
async function ask(question, name, isFile = false) {
  const turn = ++state.asked;
  find("status").className = "";
  find("status").textContent = "Searching…";
  try {
    const coded = isFile ? await call("encode", question, "application/octet-stream") : await call("encode", question);
    const own = question.ids ? (await details(question.ids))[0] : {};
    const code = coded.codes[0];
    const query = question.ids ? { ids: question.ids } : { codes: [code] };
    const [found, histogram] = await Promise.all([
      call("search", { ...query, k: Math.min(K, state.stats.limits.max_k) }), call("histogram", { codes: [code] }),
    ]);
    const items = await details(found.ids[0]);
    if (turn !== state.asked) return undefined;
    const classes = coded.classes ? coded.classes[0] : null;
    const asked = { text: question.texts ? question.texts[0] : isFile ? name : undefined, classes, ...own, code };
    find("asked-item").replaceChildren(shown(asked));
    find("asked").hidden = false;
    find("legend").hidden = items.length === 0;
    drawHistogram(histogram.counts, histogram.n);
    find("results").replaceChildren(...items.map((item, rank) => result(item, found.distances[0][rank], code)));
    const more = coded.codes.length > 1 ? ` (the first of ${coded.codes.length} queries in the file)` : "";
    find("status").textContent = items.length ? `The ${items.length} nearest to ${name}${more}` : "Nothing is in the index.";
  } catch (error) {
    if (turn !== state.asked) return undefined;
    const isNumber = question.ids && typeof question.ids[0] === "number";
    if (isNumber && error.message.includes("are strings")) return ask({ ids: [String(question.ids[0])] }, name);
    find("asked").hidden = find("legend").hidden = true;
    find("results").replaceChildren();
    tell(error);
  }
  return undefined;
}

function result(item, distance, code) {
  const unit = distance === 1 ? "bit" : "bits";
  const button = make("button", { type: "button" }, "More like this");
  button.setAttribute("aria-label", `More like item ${item.id}`);
  button.addEventListener("click", () => go({ id: String(item.id) }));
  const about = shown(item, code);
  about.querySelector("img")?.addEventListener("click", () => button.click());
  const apart = distance === null ? null
    : make("div", { className: "distance" }, make("b", {}, String(distance)), `${unit} apart`);
  return make("li", { className: apart ? "" : "offered" }, apart, about, button);
}

// The address keeps the question, so that Back works and a link can be sent.
function go(question) {
  const address = new URL(location.href);
  address.search = new URLSearchParams(question).toString();
  history.pushState(null, "", address);
  follow();
  scrollTo({ top: 0 });
}

function follow() {
  const question = new URLSearchParams(location.search);
  const text = question.get("text");
  const id = question.get("id");
  if (text !== null) {
    find("query").value = text;
    return ask({ texts: [text] }, `“${text}”`);
  }
  if (id !== null) {
    if (!readsTexts()) find("query").value = id;
    return ask({ ids: [idOf(id)] }, `item ${id}`);
  }
  return offer();
}

async function take(file) {
  if (!file) return;
  if (file.name.endsWith(".npy")) await ask(await file.arrayBuffer(), file.name, true);
  else if (readsTexts()) go({ text: (await file.text()).slice(0, 2000) });
  else tell(new Error(`${file.name} is no .npy file of codes or vectors.`));
}

function randomCode() {
  const { n_bits: nBits } = state.stats.index;
  const bytes = crypto.getRandomValues(new Uint8Array(Math.ceil(nBits / 8)));
  if (nBits % 8) bytes[bytes.length - 1] &= (1 << (nBits % 8)) - 1;
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Any code leads to an item, the nearest one. Several may lead to the same.
async function anyItems(n) {
  const { ids } = await call("search", { codes: Array.from({ length: 4 * n }, randomCode), k: 1 });
  return [...new Set(ids.flat())].slice(0, n);
}

function tell(error) {
  find("status").className = "wrong";
  find("status").textContent = error.message;
}

async function goToAny() {
  try {
    const ids = await anyItems(1);
    if (ids.length) go({ id: String(ids[0]) });
  } catch (error) {
    tell(error);
  }
}

// Without a question, show some items to begin with.
async function offer() {
  const turn = ++state.asked;
  try {
    const items = await details(await anyItems(12));
    if (turn !== state.asked) return;
    find("asked").hidden = find("legend").hidden = true;
    find("results").replaceChildren(...items.map((item) => result(item, null)));
    find("status").className = "";
    find("status").textContent = items.length ? "Some items to begin with" : "Nothing is in the index.";
  } catch (error) {
    tell(error);
  }
}

async function start() {
  try {
    state.stats = await call("stats");
  } catch (error) {
    tell(error);
    return;
  }
  find("unlock").hidden = true;
  find("ask").hidden = false;
  find("status").className = "";
  find("status").textContent = "";
  const { index, model } = state.stats;
  const parts = [`${index.n.toLocaleString()} items`, `${index.n_bits} bits`, size(index.nbytes)];
  if (model) parts.push(`model ${model.method}`);
  if (model && model.classes.length) parts.push(`${model.classes.length} classes`);
  find("about").textContent = parts.join(" · ");
  find("prompt").textContent = readsTexts() ? "Search by words" : "Search by the id of an item";
  find("query").placeholder = readsTexts() ? "Write what you look for" : "An id, such as 0";
  find("hint").replaceChildren(
    readsTexts() ? "Or drop a file here, or " : "Or drop a .npy file of codes" + (model ? " or vectors" : "") + " here, or ",
    make("a", { href: "#", onclick: (event) => { event.preventDefault(); find("file").click(); } }, "choose one"), ".",
  );
  follow();
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("query").value.trim();
  if (text && state.stats) go(readsTexts() ? { text } : { id: text });
});
find("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", find("key").value);
  start();
});
find("random").addEventListener("click", () => { if (state.stats) goToAny(); });
find("file").addEventListener("change", (event) => take(event.target.files[0]));
addEventListener("popstate", follow);
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  take(event.dataTransfer.files[0]);
});
addEventListener("keydown", (event) => {
  const isWriting = /^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !isWriting) {
    event.preventDefault();
    find("query").select();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const buttons = [...document.querySelectorAll("#results button")];
    const place = buttons.indexOf(document.activeElement);
    const next = buttons[place + (event.key === "ArrowDown" ? 1 : -1)];
    if (next && (place >= 0 || event.key === "ArrowDown")) {
      event.preventDefault();
      next.focus();
      next.closest("li").scrollIntoView({ block: "nearest" });
    }
  }
});
start();
