"use strict";
// What the tests of the report want to know of it, as the browser sees it: sent to the page around this frame.
const all = (what, within = document) => [...within.querySelectorAll(what)];
const rows = (id, column) => all(`#${id} tbody tr`).map((row) => row.cells[column].textContent.trim());
const press = (id, column) => all(`#${id} thead th`)[column].querySelector("button").click();
const rgb = (colour) => (colour.match(/[0-9.]+/g) || []).slice(0, 3).map(Number);
const drawn = (colour) => /^rgb\(/.test(colour);
const visible = (element) => element.checkVisibility() && element.getBoundingClientRect().width > 0;
const once = (values) => [...new Map(values.map((value) => [JSON.stringify(value), value])).values()];

const seen = { before: rows("by-segment", 0) };
const boxOf = (element) => element.getBoundingClientRect();
seen.width = window.innerWidth;
seen.overflow = Math.max(0, document.documentElement.scrollWidth - window.innerWidth);
seen.paper = rgb(getComputedStyle(document.body).backgroundColor);
seen.language = document.documentElement.lang;
seen.headings = all("h1, h2, h3, h4").filter(visible).map((heading) => Number(heading.tagName[1]));
seen.unnamed = all("[role=img]").filter((image) => !image.getAttribute("aria-label")).length
  + all("table").filter((table) => !table.caption).length;

const marksOf = (picture) => all("svg", picture).filter(visible).flatMap((svg) => all(".role-mark path, .role-mark line", svg));
const coloursOf = (shapes) => once(shapes.map((shape) => getComputedStyle(shape))
  .flatMap((style) => [style.stroke, style.fill]).filter(drawn).map(rgb));
seen.pictures = all(".picture").map((picture) => {
  const [svg, ...others] = all("svg", picture).filter(visible);
  const box = boxOf(svg);
  const shapes = marksOf(picture);
  const scale = box.width / svg.viewBox.baseVal.width;
  const letters = all("text", svg).map((text) => parseFloat(text.getAttribute("font-size")) * scale);
  return { svgs: 1 + others.length, marks: shapes.length, left: box.left, right: box.right,
    letters: Math.min(...letters), box: [box.x, box.y, box.width, box.height], colours: coloursOf(shapes) };
});
seen.intervals = [all("#effects .interval, #by-segment .interval").length, 0];
seen.intervals[1] = all("#effects .interval svg, #by-segment .interval svg").filter((svg) => boxOf(svg).width > 100).length;
const meant = ["--good", "--bad", "--new", "--old", "--rest"];
const probe = document.createElement("i");
document.body.append(probe);
seen.marks = meant.map((name) => { probe.style.color = `var(${name})`; return rgb(getComputedStyle(probe).color); });
probe.remove();

// The colour of text against the nearest ground that is not see-through.
const groundOf = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (!/rgba\(.*, 0\)/.test(colour)) return rgb(colour);
  }
  return seen.paper;
};
const worded = all("body *").filter((element) => visible(element) && !element.closest("script")
  && [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
seen.texts = once(worded.map((element) => {
  const style = getComputedStyle(element);
  return { ink: rgb(element instanceof SVGElement ? style.fill : style.color), paper: groundOf(element) };
}));

// By Tab one comes to what has a tabIndex of 0 or more; focus is seen where there is an outline.
const usable = all("a[href], button, summary, [tabindex]").filter((element) => element.checkVisibility());
seen.unreachable = usable.filter((element) => element.tabIndex < 0).map((element) => element.outerHTML.slice(0, 80));
seen.unfocused = usable.filter((element) => {
  element.focus({ focusVisible: true });
  return document.activeElement !== element || getComputedStyle(element).outlineStyle === "none";
}).map((element) => element.outerHTML.slice(0, 80));
seen.reached = once(usable.map((element) => element.tagName));
seen.scrolled_without_focus = all("body *").filter((element) => element.scrollWidth > element.clientWidth + 1
  && ["auto", "scroll"].includes(getComputedStyle(element).overflowX) && element.tabIndex < 0).length;

press("by-segment", 1); seen.down = rows("by-segment", 1);
press("by-segment", 1); seen.up = rows("by-segment", 1);
seen.sorted = all("#by-segment thead th")[1].getAttribute("aria-sort");
press("by-segment", 0); seen.names = rows("by-segment", 0);
press("exposure", 3); seen.empty = rows("exposure", 3).at(-1);
scrollTo(0, 0);
parent.postMessage(JSON.stringify(seen), "*");
