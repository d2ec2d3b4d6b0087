// The switch "Code: Read, Study, All code" under a page's title. Each cell's code lies in a fold
// (book/_ext/code_folds.py); Study leaves the folds as the author set them.
(() => {
  const KEY = "medseg-code";
  const MODES = { read: "Read", study: "Study", all: "All code" };
  const HINTS = {
    read: "All code folded", study: "The code that the chapter teaches is open", all: "All code open",
  };

  // Where a page may not keep anything (some private windows), the choice lasts until it is left.
  const remembered = () => {
    try { return localStorage.getItem(KEY); } catch { return null; }
  };
  const remember = (mode) => {
    try { localStorage.setItem(KEY, mode); } catch { /* as above */ }
  };

  const apply = (mode) => {
    document.documentElement.dataset.code = mode;
    for (const fold of document.querySelectorAll("details.fold.code"))
      fold.open = mode === "all" || (mode === "study" && fold.classList.contains("as-open"));
  };

  const build = (chosen) => {
    const field = document.createElement("fieldset");
    field.className = "code-switch d-print-none";
    field.innerHTML = "<legend>Code</legend>";
    for (const [mode, words] of Object.entries(MODES)) {
      const label = document.createElement("label");
      label.title = HINTS[mode];
      label.innerHTML = `<input type="radio" name="code-switch" value="${mode}"><span>${words}</span>`;
      label.firstChild.checked = mode === chosen;
      field.append(label);
    }
    field.addEventListener("change", ({ target }) => {
      apply(target.value);
      remember(target.value);
    });
    return field;
  };

  document.addEventListener("DOMContentLoaded", () => {
    const title = document.querySelector(".bd-article h1");
    if (!title || !document.querySelector("details.fold.code")) return;
    const kept = remembered();
    const mode = kept in MODES ? kept : "study";
    title.after(build(mode));
    apply(mode);
    // Folds above the place that the address names have moved it.
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  });
})();
