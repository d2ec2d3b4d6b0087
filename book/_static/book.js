// Small repairs: words for what the widgets draw, formulas that fit their column, and a search that
// works from the disk.
(() => {
  // A frame's description is the widget's tooltip, which becomes a title attribute; a screen
  // reader needs it as alternative text. Frames without one are decoration and say nothing.
  const describe = (image) => {
    if (image.title && image.alt !== image.title) image.alt = image.title;
    else if (!image.hasAttribute("alt")) image.alt = "";
  };

  // A slider's handle tells a screen reader its name and value only if it is told them; by itself
  // it says the number of the step.
  const name = (handle) => {
    handle.tabIndex = 0;
    const slider = handle.closest(".widget-slider, .widget-inline-hbox");
    const say = (attribute, text) => {
      if (text && handle.getAttribute(attribute) !== text) handle.setAttribute(attribute, text);
    };
    say("aria-label", slider?.querySelector(".widget-label")?.textContent);
    say("aria-valuetext", slider?.querySelector(".widget-readout")?.textContent);
  };

  const mend = (root) => {
    root.querySelectorAll?.("img.widget-image, .widget-image img").forEach(describe);
    root.querySelectorAll?.(".noUi-handle").forEach(name);
  };

  // A formula a little wider than its column is set smaller, down to 65 %; a wider one is scrolled.
  const fit = () => {
    for (const picture of document.querySelectorAll('mjx-container[display="true"] > svg')) {
      picture.style.width = picture.style.height = "";
      const column = picture.parentElement.clientWidth;
      const own = picture.getBoundingClientRect().width;
      if (column > 0 && own > column) {
        picture.style.width = `${Math.max(column, 0.65 * own)}px`;
        picture.style.height = "auto";
      }
    }
  };

  // A page opened from the disk may not read its neighbours, and the search would fail to quote
  // them; without the quotations it finds the pages all the same.
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined")
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  document.addEventListener("DOMContentLoaded", () => {
    mend(document);
    window.addEventListener("load", () => window.MathJax?.startup?.promise?.then(fit));
    window.addEventListener("resize", fit);
    new MutationObserver((changes) => {
      for (const { target } of changes) mend(target.parentElement ?? target);
    }).observe(document.body, {
      childList: true, subtree: true, attributes: true, attributeFilter: ["title", "aria-valuetext"],
    });
  });
})();
