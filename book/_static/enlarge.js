// On a phone the letters in a figure of several panels are too small: a tap shows it large, to be
// moved with the finger. Escape or a second tap closes it.
(() => {
  const LARGE = 900; // CSS pixels: as wide as on a desk

  const show = (image) => {
    const dialog = Object.assign(document.createElement("dialog"), { className: "enlarged" });
    const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close" });
    const large = image.cloneNode();
    large.removeAttribute("style");
    large.width = Math.max(LARGE, window.innerWidth);
    large.removeAttribute("height");
    dialog.append(close, large);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  };

  document.addEventListener("DOMContentLoaded", () => {
    if (!window.matchMedia("(max-width: 600px)").matches) return;
    for (const image of document.querySelectorAll(".bd-article .cell_output img")) {
      if (image.closest("a, .jupyter-widgets")) continue;
      const button = Object.assign(document.createElement("button"), { type: "button", className: "enlarge" });
      button.addEventListener("click", () => show(image));
      image.replaceWith(button);
      button.append(image);
    }
  });
})();
