// Small repairs: words for what the widgets draw, formulas that fit their column, a keyboard that
// reaches what scrolls, paper that shows what is folded, and a search that works from the disk.
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

  // What scrolls sideways can be reached and scrolled by keyboard; a table says that it scrolls.
  const SCROLLING = ".pst-scrollable-table-container, .text_html, .cell_output pre, .highlight pre, "
    + ".cell_output, mjx-container[display='true'], div.math";
  const reach = () => {
    for (const box of document.querySelectorAll(`.bd-article :is(${SCROLLING})`)) {
      const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
      if (box.querySelector(":scope > table, :scope > div > table"))
        box.classList.toggle("scrolls-sideways", scrolls);
    }
  };

  // On paper nothing can be opened. Code stays as the reader has it, solutions come last.
  const unfold = () => {
    for (const fold of document.querySelectorAll(".bd-article details:not(.fold)")) fold.open = true;
    const solutions = [...document.querySelectorAll(".bd-article details.solution")];
    if (!solutions.length) return;
    const last = document.createElement("section");
    last.append(Object.assign(document.createElement("h2"), { textContent: "Solutions" }));
    const back = solutions.map((solution) => {
      const place = document.createComment("solution"), words = solution.querySelector("summary");
      const heading = solution.closest("section")?.querySelector("h3")?.firstChild.textContent;
      if (heading) words.textContent = heading;
      solution.replaceWith(place);
      last.append(solution);
      return () => { words.textContent = "Solution"; place.replaceWith(solution); };
    });
    document.querySelector("article.bd-article").append(last);
    window.addEventListener("afterprint", () => { back.forEach((put) => put()); last.remove(); }, { once: true });
  };

  // A page opened from the disk may not read its neighbours, and the search would fail to quote
  // them; without the quotations it finds the pages all the same.
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined")
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  document.addEventListener("DOMContentLoaded", () => {
    mend(document);
    const settle = () => { fit(); reach(); };
    window.addEventListener("load", () => {
      reach();
      window.MathJax?.startup?.promise?.then(settle);
    });
    window.addEventListener("resize", settle);
    document.addEventListener("toggle", reach, true);
    window.addEventListener("beforeprint", unfold);
    new MutationObserver((changes) => {
      for (const { target } of changes) mend(target.parentElement ?? target);
    }).observe(document.body, {
      childList: true, subtree: true, attributes: true, attributeFilter: ["title", "aria-valuetext"],
    });
  });
})();
