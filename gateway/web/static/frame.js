// What every page has: the choice of light or dark, and the dialog that asks for a key.

import { key } from "./api.js";
import { find } from "./dom.js";

const THEMES = ["auto", "light", "dark"];

/** `onKey` and `onTheme` are called after a change. */
export function setUpFrame({ onKey, onTheme = () => {} }) {
  setUpTheme(onTheme);
  const dialog = find("key-dialog");
  const take = (text) => {
    key.set(text);
    showKey();
    dialog.close();
    onKey();
  };
  find("key-button").onclick = () => askForKey("The gateway knows you by it.");
  find("key-cancel").onclick = () => dialog.close();
  find("key-forget").onclick = () => take("");
  find("key-form").onsubmit = (event) => {
    event.preventDefault();
    take(find("key-input").value.trim());
  };
  showKey();
}

export function askForKey(reason) {
  find("key-reason").textContent = reason;
  find("key-input").value = "";
  find("key-forget").hidden = !key.get();
  if (!find("key-dialog").open) find("key-dialog").showModal();
}

function showKey() {
  const text = key.get();
  find("key-button").textContent = text ? `Key: …${text.slice(-4)}` : "Key: none";
}

function setUpTheme(onTheme) {
  const root = document.documentElement;
  const button = find("theme-button");
  const show = () => (button.textContent = `Theme: ${root.dataset.theme ?? "auto"}`);
  button.onclick = () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length];
    if (next === "auto") {
      delete root.dataset.theme;
      localStorage.removeItem("glassgate.theme");
    } else {
      root.dataset.theme = next;
      localStorage.setItem("glassgate.theme", next);
    }
    show();
    onTheme();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onTheme);
  show();
}
