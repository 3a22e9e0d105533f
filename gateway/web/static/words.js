// Numbers as people read them.

const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en");

export const format = (number) => whole.format(Math.round(number));
export const compact = (number) => short.format(number);
export const counted = (number, noun) => `${format(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Dollars, with as many places as the amount needs. */
export function money(dollars) {
  const isSmall = dollars && Math.abs(dollars) < 0.1;
  const places = isSmall
    ? { maximumSignificantDigits: 2 }
    : { minimumFractionDigits: 2, maximumFractionDigits: 2 };
  return `$${new Intl.NumberFormat("en", places).format(dollars)}`;
}

/** A time in milliseconds, to three digits or so. */
export function milliseconds(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10_000 ? 1 : 2)} s`;
  return `${ms.toFixed(ms >= 100 ? 0 : ms >= 10 ? 1 : 2)} ms`;
}
