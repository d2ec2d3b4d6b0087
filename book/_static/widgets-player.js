// The widgets' player (RequireJS and the bundle, 3.7 MB) is fetched when the first widget of a page
// comes within a screen of what is seen, or when the page is printed. It also mends four places
// where the widgets' scripts and the book's theme do not know of each other.
(() => {
  const vendor = new URL("vendor/", document.currentScript.src).href;
  const VIEWS = 'script[type="application/vnd.jupyter.widget-view+json"]';

  // 1. The theme's Font Awesome replaces each <i> by an <svg>; a widget that later sets the class
  //    of its <i> fails and stops. "nest" puts the <svg> inside the <i> instead.
  window.FontAwesomeConfig = { ...window.FontAwesomeConfig, autoReplaceSvg: "nest" };
  if (window.FontAwesome) window.FontAwesome.config.autoReplaceSvg = "nest";

  const fetchScript = (name, attributes = {}) => new Promise((done, failed) => {
    const script = Object.assign(document.createElement("script"), { src: vendor + name });
    for (const [key, value] of Object.entries(attributes)) script.setAttribute(key, value);
    script.onload = done;
    script.onerror = () => failed(new Error(`${name} could not be loaded`));
    document.head.append(script);
  });

  // Widget labels are typeset through MathJax 2's queue; the book has MathJax 3. The class is
  // needed because MyST tells MathJax to pass over everything that does not carry it.
  const lendQueue = () => {
    if (!window.MathJax || window.MathJax.Hub) return;
    window.MathJax.Hub = {
      Queue: ([, , element]) => {
        element.classList.add("mathjax_process");
        window.MathJax.startup.promise.then(() => window.MathJax.typesetPromise([element]));
      },
    };
  };

  const drawn = async () => {
    const missing = () => [...document.querySelectorAll(VIEWS)].some((view) => view.isConnected
      && !view.parentElement.querySelector(".jupyter-widgets"));
    for (let i = 0; i < 100 && missing(); i++) await new Promise((done) => setTimeout(done, 50));
  };

  let started;
  const start = () => (started ??= (async () => {
    lendQueue(); // 2.
    window.require = { baseUrl: vendor }; // 3. RequireJS would look for parts beside the page.
    await fetchScript("require.js");
    // 4. The bundle asks for parts at a CDN unless its own tag names another place.
    await fetchScript("embed-amd.js", { "data-jupyter-widgets-cdn": vendor });
    await drawn();
    document.documentElement.dataset.widgets = "drawn";
  })());

  // Printing waits for the pictures where a script can make it wait: the page's button and Ctrl+P.
  const print = window.print.bind(window);
  window.print = () => start().finally(print);
  window.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key !== "p") return;
    event.preventDefault();
    window.print();
  });
  window.addEventListener("beforeprint", start);

  document.addEventListener("DOMContentLoaded", () => {
    const near = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      start();
    }, { rootMargin: "100% 0px" });
    for (const view of document.querySelectorAll(VIEWS)) near.observe(view.parentElement);
  });
})();
