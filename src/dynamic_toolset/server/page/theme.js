// Dark or light: as the system has it, until a person chooses otherwise. The choice is kept nowhere.

const dark = matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");
const theme = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
const show = () => button.setAttribute("aria-pressed", String(theme() === "dark"));

button.addEventListener("click", () => {
  document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
  show();
});
dark.addEventListener("change", show);
show();
