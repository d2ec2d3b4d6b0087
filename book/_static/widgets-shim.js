// Loaded before require.js and embed-amd.js, on pages that hold widgets. It mends four places
// where the widgets' scripts and the book's theme do not know of each other.
(() => {
  const vendor = new URL("vendor/", document.currentScript.src).href;

  // 1. RequireJS would look for further parts beside the page; they lie beside the scripts.
  window.require = { baseUrl: vendor };

  // 2. The bundle asks for parts at a CDN unless its own tag names another place. That tag stands
  //    further down and is deferred: "interactive" is the moment when it exists and has not run.
  document.addEventListener("readystatechange", () => {
    if (document.readyState !== "interactive") return;
    for (const script of document.querySelectorAll('script[src*="embed-amd.js"]'))
      script.setAttribute("data-jupyter-widgets-cdn", vendor);
  });

  // 3. The theme's Font Awesome replaces each <i> by an <svg>; a widget that later sets the class
  //    of its <i> fails and stops. "nest" puts the <svg> inside the <i> instead.
  window.FontAwesomeConfig = { ...window.FontAwesomeConfig, autoReplaceSvg: "nest" };
  if (window.FontAwesome) window.FontAwesome.config.autoReplaceSvg = "nest";

  // 4. Widget labels are typeset through MathJax 2's queue; the book has MathJax 3. The class is
  //    needed because MyST tells MathJax to pass over everything that does not carry it.
  document.addEventListener("DOMContentLoaded", () => {
    if (!window.MathJax || window.MathJax.Hub) return;
    window.MathJax.Hub = {
      Queue: ([, , element]) => {
        element.classList.add("mathjax_process");
        window.MathJax.startup.promise.then(() => window.MathJax.typesetPromise([element]));
      },
    };
  });
})();
