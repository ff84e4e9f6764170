// Integers of 64 bits, such as seeds: JavaScript's numbers have 53 bits, so longer ones stay text.

/** Parsed JSON; if the browser passes the source to a reviver, longer integers become text. */
export const exact = (text) => JSON.parse(text, (name, value, context) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? context.source : value);

/** A field's integer for JSON: a number, or its digits as text, which the gateway accepts too. */
export const wholeNumber = (text) => (Number.isSafeInteger(Number(text)) ? Number(text) : text);
