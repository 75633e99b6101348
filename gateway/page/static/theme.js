// Dark or light: what the system prefers, until the person has chosen otherwise. A classic script in
// the head, not a module, so that a page never shows itself in the wrong colours first.
(() => {
  const root = document.documentElement;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");

  const stored = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage may be forbidden
    }
  };
  const tell = () => document.dispatchEvent(new Event("themechange"));

  const choice = stored();
  if (choice === "dark" || choice === "light") root.dataset.theme = choice;
  systemDark.addEventListener("change", tell);

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
    root.dataset.theme = isDark ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // then it holds for this page only
    }
    tell();
  });
})();
