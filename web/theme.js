// The light or dark theme: the system's preference, or the choice made with a [data-theme-toggle] button, which is kept
// in localStorage. Not a module, because it runs in <head> and must set the root's data-theme before the first paint.
// Dispatches "themechange" on document for content that scripts paint.

(() => {
  const KEY = "qws.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  // Storage may be blocked; the choice then lasts as long as the page.
  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const store = (theme) => {
    try {
      if (theme === null) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, theme);
    } catch {
      // As above.
    }
  };

  let chosen = stored();

  function apply() {
    const systems = system.matches ? "dark" : "light";
    const theme = chosen === "dark" || chosen === "light" ? chosen : systems;
    document.documentElement.dataset.theme = theme;
    for (const button of document.querySelectorAll("[data-theme-toggle]")) label(button, theme);
    document.dispatchEvent(new CustomEvent("themechange", { detail: theme }));
  }

  function label(button, theme) {
    const text = theme === "dark" ? "Switch to light theme" : "Switch to dark theme";
    button.setAttribute("aria-label", text);
    button.title = text;
  }

  function toggle() {
    const systems = system.matches ? "dark" : "light";
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    // A choice that matches the system's preference is dropped, so the page follows the system again.
    chosen = next === systems ? null : next;
    store(chosen);
    apply();
  }

  apply();
  system.addEventListener("change", apply);
  addEventListener("storage", (event) => {
    if (event.key !== KEY && event.key !== null) return;
    chosen = stored();
    apply();
  });
  document.addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("[data-theme-toggle]")) button.addEventListener("click", toggle);
    apply();
  });
})();
