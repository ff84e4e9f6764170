"use strict";
// Runs before the first paint, so that the page does not flash in another theme.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch { /* storage may be forbidden; then the system's theme is used */ }
