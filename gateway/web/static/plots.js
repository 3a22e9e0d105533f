// The plots of the usage page, in the page's own colours.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { find } from "./dom.js";
import { compact, format, money } from "./words.js";

const HEIGHT = 210;
const ROOM = 4; // a limit further away than this many times the highest value would flatten the plot

const plots = new Map(); // place → the uPlot in it
const watch = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries)
    if (contentRect.width)
      plots.get(target.id)?.setSize({ width: contentRect.width, height: HEIGHT });
});

export function drawPlots(figures, limits) {
  const limit = (kind) => limits.find((it) => it.kind === kind)?.most;
  const isMinutes = figures.range.step === 60;
  const isDays = figures.range.step === 86_400;
  draw("requests", figures, [["requests", "--accent"]], {
    say: format,
    most: isMinutes && limit("requests"),
  });
  const tokens = [
    ["prompt", "--blue"],
    ["cached", "--amber"],
    ["completion", "--accent"],
  ];
  draw("tokens", figures, tokens, {
    say: format,
    isLine: true,
    most: isMinutes && limit("tokens"),
  });
  draw("cost", figures, [["cost", "--blue"]], { say: money, most: isDays && limit("day") });
  draw("errors", figures, [["errors", "--red"]], { say: format });
}

function draw(name, figures, lines, { say, isLine = false, most = 0 }) {
  const place = find(`plot-${name}`);
  const data = [figures.at, ...lines.map(([key]) => figures[key])];
  const highest = Math.max(0, ...data.slice(1).flat());
  const series = lines.map(([key, colour]) => seriesOf(key, colourOf(colour), say, isLine));
  if (most && most <= ROOM * highest) {
    data.push(figures.at.map(() => most));
    series.push({
      label: "limit",
      stroke: colourOf("--red"),
      dash: [6, 4],
      width: 1.5,
      points: { show: false },
      value: (_, it) => say(it ?? most),
    });
  }
  plots.get(place.id)?.destroy();
  plots.set(place.id, new uPlot(optionsOf(place, figures.range, series, say), data, place));
  watch.observe(place);
  place.parentElement.querySelector("figcaption").textContent =
    `${name[0].toUpperCase()}${name.slice(1)} ${figures.range.unit}`;
  place.setAttribute("role", "img");
  place.setAttribute(
    "aria-label",
    `${name} ${figures.range.unit}, ${figures.range.text}: at most ${say(highest)}`,
  );
}

function seriesOf(label, colour, say, isLine) {
  const fill = `color-mix(in srgb, ${colour} ${isLine ? 12 : 75}%, transparent)`;
  const paths = isLine ? undefined : uPlot.paths.bars({ size: [0.7, 26], radius: 0.2 });
  const shape = { stroke: colour, fill, width: isLine ? 1.8 : 0, paths };
  return {
    ...shape,
    label,
    points: { show: false },
    value: (_, it) => (it === null ? "" : say(it)),
  };
}

function optionsOf(place, range, series, say) {
  const axis = {
    stroke: colourOf("--soft"),
    grid: { stroke: colourOf("--line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
  };
  const shown =
    range.step < 86_400
      ? { hour: "2-digit", minute: "2-digit", hour12: false }
      : { day: "numeric", month: "short" };
  const time = new Intl.DateTimeFormat("en-GB", { ...shown, timeZone: "UTC" });
  const when = (seconds) => time.format(seconds * 1000);
  const short = (number) => (say === money ? money(number) : number % 1 ? "" : compact(number));
  const half = range.step / 2; // room for the first and the last bar
  return {
    width: place.clientWidth || 300,
    height: HEIGHT,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    cursor: { drag: { x: false, y: false }, points: { show: false } },
    scales: {
      x: { range: (_, low, high) => [low - half, high + half] },
      y: { range: (_, low, high) => [0, (high || 1) * 1.08] },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        values: (_, splits) => splits.map(when),
        space: 64,
        size: 30,
      },
      { ...axis, values: (_, splits) => splits.map(short), size: 58, space: 40 },
    ],
    series: [{ label: "UTC", value: (_, it) => (it === null ? "" : when(it)) }, ...series],
  };
}

/** A colour of the page's, as a canvas wants it. */
function colourOf(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
