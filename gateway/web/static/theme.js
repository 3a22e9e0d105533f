// Light or dark before the first paint: the system's way, or what was chosen here before.
"use strict";
{
  const chosen = localStorage.getItem("glassgate.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
}
