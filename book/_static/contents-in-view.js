// Marks, in the list of contents on the right, the section that is being read. The theme's own marker
// looks at which headings are on the screen; a long section without one leaves it behind.
(() => {
  document.addEventListener("DOMContentLoaded", () => {
    document.body.removeAttribute("data-bs-spy"); // before the theme starts its own, on load
    const entries = [...document.querySelectorAll("#pst-page-toc-nav a[href^='#']")]
      .map((link) => ({ link, section: document.getElementById(decodeURIComponent(link.hash.slice(1))) }))
      .filter(({ section }) => section);
    if (!entries.length) return;

    const seen = ({ section }) => section.getBoundingClientRect().top < window.innerHeight;
    const inView = () => {
      const page = document.documentElement;
      if (page.scrollHeight - window.scrollY - window.innerHeight < 2) {
        // The last sections cannot reach the top: the one that was asked for, else the last.
        return entries.find((e) => e.link.hash === location.hash && seen(e)) ?? entries.at(-1);
      }
      const line = 0.15 * window.innerHeight;
      return entries.filter(({ section }) => section.getBoundingClientRect().top <= line).at(-1);
    };

    const mark = () => {
      const now = inView();
      for (const { link } of entries) {
        link.classList.toggle("active", link === now?.link);
        link.parentElement.classList.toggle("in-view", link.parentElement.contains(now?.link ?? null));
        if (link === now?.link) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    };

    let waiting = false;
    const soon = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; mark(); });
    };
    for (const event of ["scroll", "resize", "hashchange", "load"]) window.addEventListener(event, soon);
    mark();
  });
})();
