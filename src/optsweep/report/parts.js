"use strict";
// What charts are made of: elements, numbers in words, the colours of the page's theme.
const FEW = 8; // arms that have a colour, and whose bands don't hide each other
const root = document.documentElement;
const said = document.querySelector(".said");

const element = (name, known = {}, ...inside) => {
  const made = Object.assign(document.createElement(name), known);
  made.append(...inside);
  return made;
};
const button = (text, title, press) => element("button", { type: "button", title, onclick: press }, text);
const number = (value, digits = 5) => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const power = () => value.toExponential(digits - 2).replace(/\.?0+e/, "e").replace("e+", "e");
  const text = size && (size < 1e-4 || size >= 1e7) ? power() : String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, "−");
};
const withHalf = (value, half) => {
  if (!half || value === null) return number(value);
  const places = Math.min(Math.max(1 - Math.floor(Math.log10(half)), 0), 9);
  if (places > 7 || Math.abs(value) >= 1e7) return `${number(value)} ± ${number(half, 2)}`;
  return `${value.toFixed(places).replace("-", "−")} ± ${half.toFixed(places)}`;
};

let theme = {};
const readTheme = () => {
  const found = getComputedStyle(root);
  const of = (name) => found.getPropertyValue(`--${name}`).trim();
  theme = {
    ink: of("ink"),
    muted: of("muted"),
    grid: of("grid"),
    rest: of("rest"),
    arms: [...Array(FEW).keys()].map((i) => of(`arm-${i}`)),
  };
};
const colour = (arm) => theme.arms[arm.style] ?? theme.rest;
