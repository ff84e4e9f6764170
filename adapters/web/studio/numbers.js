// Whole numbers of 64 bits, such as seeds: JavaScript's numbers have 53, what is longer stays text.

/** JSON as JSON.parse reads it; where the browser shows a reviver the source, a longer whole number is its digits. */
export const exact = (text) => JSON.parse(text, (name, value, context) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? context.source : value);

/** What a field holds as JSON can say it: a number, or its digits as text, which the gateway takes as well. */
export const wholeNumber = (text) => (Number.isSafeInteger(Number(text)) ? Number(text) : text);
