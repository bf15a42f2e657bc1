// The theme, before anything is painted: the system's, or what was chosen here. Owns data-theme and its button.
"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const read = () => {
    try {
      return localStorage.getItem("collimate-theme");
    } catch {
      return null;
    }
  };
  const set = (theme) => {
    root.dataset.theme = themes.includes(theme) ? theme : "auto";
  };
  set(read());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      button.textContent = `Theme: ${root.dataset.theme}`;
    };
    label();
    button.addEventListener("click", () => {
      set(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]);
      label();
      try {
        localStorage.setItem("collimate-theme", root.dataset.theme);
      } catch {
        // Without storage the choice lasts as long as the page.
      }
    });
  });
})();
