"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Light or dark: the system's choice until the button overrules it.
const theme = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const remembered = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
const setTheme = name => {
  if (name) document.documentElement.dataset.theme = name;
  theme.textContent = (name ? name === "dark" : systemDark.matches) ? "Light" : "Dark";
};
theme.hidden = false;
theme.onclick = () => {
  const name = theme.textContent.toLowerCase();
  try { localStorage.setItem("theme", name); } catch { /* a page from disk may have no storage */ }
  setTheme(name);
};
systemDark.onchange = () => setTheme(document.documentElement.dataset.theme);
setTheme(remembered);

// A phone need not scroll past what it did not ask for.
if (matchMedia("(max-width: 600px)").matches) for (const part of all("details[open]")) part.open = false;

// One view of several.
for (const chooser of all(".chooser")) {
  const select = chooser.querySelector("select"), views = all(":scope > .choice", chooser);
  select.onchange = () => views.forEach((view, i) => { view.hidden = i !== select.selectedIndex; view.style.display = view.hidden ? "none" : ""; });
  select.onchange();
  chooser.classList.add("ready");
}

// What lies beside a table's edge is named below it.
const hint = part => {
  const edge = part.getBoundingClientRect().right;
  const beyond = all("thead th", part).filter(cell => cell.getBoundingClientRect().right > edge + 8).map(cell => cell.textContent);
  const line = part.nextElementSibling;
  if (!line || !line.matches(".more")) return;
  line.hidden = !beyond.length;
  line.textContent = `Scroll sideways for: ${beyond.join(" · ")} →`;
};
const hints = new ResizeObserver(entries => entries.forEach(entry => hint(entry.target)));
for (const part of all(".scroll")) { part.addEventListener("scroll", () => hint(part), { passive: true }); hints.observe(part); }

// One data set of several.
const tabs = all("[role=tab]");
const choose = name => {
  for (const tab of tabs) {
    const chosen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
};
if (tabs.length) {
  document.querySelector(".tabs").hidden = false;
  const names = tabs.map(tab => tab.getAttribute("aria-controls"));
  const follow = () => { const name = decodeURIComponent(location.hash.slice(1)); if (names.includes(name)) { choose(name); document.getElementById(name).scrollIntoView(); } };
  tabs.forEach((tab, i) => {
    tab.onclick = () => choose(names[i]);
    tab.onkeydown = event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { const next = tabs[(i + step + tabs.length) % tabs.length]; next.click(); next.focus(); }
    };
  });
  addEventListener("hashchange", follow);
  choose(names[0]);
  follow();
}

// Values under the pointer, or by arrow keys.
const tip = document.getElementById("tip");
for (const chart of all(".chart")) {
  const svg = chart.querySelector("svg"), cursor = svg.querySelector(".cursor");
  if (!cursor) continue;
  const lines = all("g.line", svg).map(node => ({
    node, name: node.dataset.name, x: node.dataset.x.split("|"), y: node.dataset.y.split("|"),
    points: [...node.querySelector("polyline").points],
  }));
  let at = null;
  const places = () => [...new Set(lines.filter(l => !l.node.hasAttribute("hidden")).flatMap(l => l.points.map(p => p.x)))].sort((a, b) => a - b);
  const nearest = (values, x) => values.reduce((best, value) => Math.abs(value - x) < Math.abs(best - x) ? value : best, values[0]);
  const show = (x, left, top) => {
    at = x;
    cursor.setAttribute("d", `M${x} 28V254`);
    tip.replaceChildren();
    for (const line of lines) {
      const i = line.points.findIndex(p => Math.abs(p.x - x) < 0.06);
      if (i < 0 || line.node.hasAttribute("hidden")) continue;
      if (!tip.childNodes.length) tip.append(Object.assign(document.createElement("div"), { textContent: `${svg.dataset.xLabel}: ${line.x[i]}` }));
      const row = document.createElement("div"), dot = document.createElement("i");
      dot.style.background = getComputedStyle(line.node).getPropertyValue("--c");
      row.append(dot, `${line.name}: ${line.y[i]}`);
      tip.append(row);
    }
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(left + 14, innerWidth - box.width - 4))}px`;
    const bar = document.querySelector("header").getBoundingClientRect().bottom, above = top - box.height - 14;
    tip.style.top = `${above < bar + 4 ? Math.max(bar + 4, top + 18) : above}px`;
  };
  const hide = () => { at = null; tip.hidden = true; cursor.setAttribute("d", ""); };
  svg.onpointermove = event => {
    const values = places(), point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    if (values.length) show(nearest(values, point.x), event.clientX, event.clientY);
  };
  svg.onpointerleave = hide;
  svg.onblur = hide;
  svg.onkeydown = event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], values = places();
    if (!step || !values.length) return;
    event.preventDefault();
    const i = at === null ? (step > 0 ? 0 : values.length - 1) : Math.max(0, Math.min(values.length - 1, values.indexOf(at) + step));
    const place = new DOMPoint(values[i], 60).matrixTransform(svg.getScreenCTM());
    show(values[i], place.x, place.y);
  };
  for (const button of all(".legend button", chart)) button.onclick = () => {
    const pressed = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", pressed);
    for (const line of lines) if (line.node.dataset.entry === button.dataset.entry) line.node.toggleAttribute("hidden", !pressed);
  };
}

// A picture, enlarged.
const dialog = document.getElementById("enlarged");
for (const button of all(".zoom")) button.onclick = () => {
  const figure = button.closest("figure").cloneNode(true);
  const pictures = all("img", button), width = pictures.reduce((sum, part) => sum + part.naturalWidth, 0);
  figure.style.setProperty("--aspect", pictures[0].naturalHeight / width || 1);
  figure.querySelector(".zoom").setAttribute("aria-label", "Close");
  dialog.replaceChildren(figure);
  dialog.showModal();
};
dialog.onclick = () => dialog.close();
