// Light or dark: what the system prefers, or what the button with data-theme-toggle chose, which localStorage keeps.
// Not a module: it is loaded in <head> and has to set the root's data-theme before the first paint.
// Dispatches "themechange" on document, for what is painted by script.

(() => {
  const KEY = "qws.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  // Storage can be forbidden; the choice then lasts as long as the page.
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
    const text = theme === "dark" ? "Use light colours" : "Use dark colours";
    button.setAttribute("aria-label", text);
    button.title = text;
  }

  function toggle() {
    const systems = system.matches ? "dark" : "light";
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    // Back at what the system prefers, the system is followed again.
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
