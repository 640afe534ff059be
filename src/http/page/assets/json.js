// JSON whose whole numbers keep all their digits: a seed has up to 64 bits, more than a number of JavaScript holds.

/** Whole numbers beyond 2^53 become BigInt. */
export function readJson(text) {
  return JSON.parse(text, (_, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? BigInt(context.source) : value);
}

export function writeJson(value, indent) {
  const raw = JSON.rawJSON ?? ((text) => Number(text));
  return JSON.stringify(value, (_, item) => (typeof item === "bigint" ? raw(String(item)) : item), indent);
}

/** A whole number from text, or null if it is none. */
export function wholeNumber(text) {
  if (!/^-?\d{1,20}$/.test(text.trim())) return null;
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : BigInt(text);
}
