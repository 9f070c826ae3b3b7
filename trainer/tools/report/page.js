"use strict";
// Draws the figures in the colours of the theme, and opens a run below its row.
const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line, ground] = ["--ink", "--line", "--ground"].map((name) => style.getPropertyValue(name).trim());
  const styled = structuredClone(layout);
  Object.assign(styled, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true });
  styled.font = { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 };
  styled.hoverlabel = { font: { family: styled.font.family } };
  styled.annotations.forEach((note) => { note.bgcolor = ground; });
  for (const name of Object.keys(styled).filter((key) => /^[xy]axis\d*$/.test(key))) {
    Object.assign(styled[name], { gridcolor: line, linecolor: line, zerolinecolor: line });
  }
  return styled;
}

function draw(place, figure) {
  drawn.set(place, figure);
  Plotly.react(place, figure.data, themed(figure.layout), { displaylogo: false, responsive: true, displayModeBar: false });
}

function openOnClick(place) {
  place.on("plotly_click", (event) => {
    const number = event.points.map((point) => point.customdata ?? point.data.meta).find(Number.isInteger);
    if (number !== undefined) open(number);
  });
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function paste(text) {
  const box = element("div", "", "paste");
  const button = element("button", "copy");
  button.type = "button";
  box.append(element("code", text), button);
  return box;
}

function detail(run) {
  const box = element("div", "", "detail");
  const list = document.createElement("dl");
  const link = element("a", run.name);
  link.href = run.href;
  const facts = [["folder", link], ["run again", paste(run.command)], ["TensorBoard", paste(run.board)], ["examine", paste(run.doctor)]];
  if (run.error) facts.unshift(["error", element("code", run.error)]);
  for (const [name, value] of facts) {
    const plain = value.className === "paste" ? "" : "plain";
    const cell = element("dd", "", plain);
    cell.append(value);
    list.append(element("dt", name, plain), cell);
  }
  const figure = element("div", "", "figure");
  box.append(run.curves ? figure : element("p", "This run has no log of its curves.", "note"), list);
  return [box, run.curves ? figure : null];
}

function open(number) {
  const row = document.querySelector(`tr[data-run="${number}"]`);
  if (!row) return;
  if (row.getAttribute("aria-expanded") === "false") toggle(row);
  row.scrollIntoView({ block: "start", behavior: "smooth" });
}

function toggle(row) {
  const next = row.nextElementSibling;
  if (row.getAttribute("aria-expanded") === "true") {
    row.setAttribute("aria-expanded", "false");
    next.querySelectorAll(".figure").forEach((place) => { Plotly.purge(place); drawn.delete(place); });
    next.remove();
    return;
  }
  row.setAttribute("aria-expanded", "true");
  const run = data.runs[Number(row.dataset.run)];
  const cell = element("td", "", "open");
  cell.colSpan = row.cells.length;
  const [box, figure] = detail(run);
  box.style.width = row.closest(".scroll").clientWidth + "px";
  cell.append(box);
  const holder = element("tr", "", "holder");
  holder.append(cell);
  row.after(holder);
  if (figure) draw(figure, run.curves);
}

function sort(head) {
  const body = head.closest("table").tBodies[0];
  const at = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  [...head.parentNode.cells].forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.querySelectorAll('tr[aria-expanded="true"]').forEach(toggle);
  const compare = (a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[at].textContent);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = Number(x) - Number(y) || x.localeCompare(y, undefined, { numeric: true });
    return down ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
}

document.addEventListener("click", (event) => {
  const target = event.target;
  if (target.closest("a")) return;
  const copy = target.closest(".paste button");
  if (copy) {
    navigator.clipboard?.writeText(copy.previousElementSibling.textContent).then(() => { copy.textContent = "copied"; }, () => {});
    return;
  }
  const head = target.closest("th");
  if (head) return sort(head);
  const row = target.closest("tr[data-run]");
  if (row) toggle(row);
});
document.addEventListener("keydown", (event) => {
  if ((event.key === "Enter" || event.key === " ") && event.target.matches("tr[data-run]")) {
    event.preventDefault();
    toggle(event.target);
  }
});
for (const [name, figure] of Object.entries(data.figures)) {
  const place = document.getElementById(name);
  draw(place, figure);
  openOnClick(place);
}
dark.addEventListener("change", () => drawn.forEach((figure, place) => draw(place, figure)));
addEventListener("resize", () => document.querySelectorAll(".detail").forEach((box) => {
  box.style.width = box.closest(".scroll").clientWidth + "px";
}));
const seconds = Number(document.body.dataset.reload || 0);
if (seconds) {
  const rows = JSON.parse(sessionStorage.getItem("rows") || "[]");
  rows.forEach((number) => document.querySelectorAll(`tr[data-run="${number}"]`).forEach(toggle));
  setTimeout(() => {
    const open = [...document.querySelectorAll('tr[aria-expanded="true"]')].map((row) => row.dataset.run);
    sessionStorage.setItem("rows", JSON.stringify(open));
    location.reload();
  }, 1000 * seconds);
}
