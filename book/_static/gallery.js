// A search and filters above the cards of the cover. Each card says its facts in spans of the class
// fact-…; what is offered is what the cards say. The choice is kept in the address, so that
// a link can name it.
(() => {
  const LEVELS = ["introductory", "intermediate", "advanced"];
  const VERDICTS = {
    "every claim holds": (c) => c.has(".verdict-holds") && !c.has(".verdict-fails, .verdict-open"),
    "a claim fails": (c) => c.has(".verdict-fails"),
    "a claim is undecided": (c) => c.has(".verdict-open"),
  };

  const card = (box) => {
    const fact = (name) => box.querySelector(`.fact-${name}`)?.textContent ?? "";
    return { box, fact, has: (s) => box.querySelector(s) !== null, text: box.textContent.toLowerCase() };
  };

  // The words of a filter, and which cards pass it.
  const filters = (cards) => {
    const offered = (name) => [...new Set(cards.map((c) => c.fact(name)).filter(Boolean))].sort();
    const equal = (name) => (c, chosen) => c.fact(name) === chosen;
    const minutes = offered("minutes").map((m) => parseInt(m, 10)).sort((a, b) => a - b);
    return [
      { name: "theme", words: "Theme", choices: offered("theme"), passes: equal("theme") },
      { name: "images", words: "Images", choices: offered("images"), passes: equal("images") },
      {
        name: "level", words: "Level", passes: equal("level"),
        choices: LEVELS.filter((level) => offered("level").includes(level)),
      },
      {
        name: "minutes", words: "Lesson", choices: minutes.map((m) => `up to ${m} min`),
        passes: (c, chosen) => parseInt(c.fact("minutes"), 10) <= parseInt(chosen.slice(6), 10),
      },
      {
        name: "verdict", words: "Verdicts", passes: (c, chosen) => VERDICTS[chosen](c),
        choices: Object.keys(VERDICTS).filter((words) => cards.some(VERDICTS[words])),
      },
    ].filter(({ choices }) => choices.length > 1);
  };

  const control = (words, field) => {
    const label = document.createElement("label");
    label.append(words, field);
    return label;
  };

  const select = ({ name, choices }) => {
    const field = Object.assign(document.createElement("select"), { name });
    field.append(new Option("any", ""), ...choices.map((choice) => new Option(choice, choice)));
    return field;
  };

  const start = (gallery) => {
    const cards = [...gallery.querySelectorAll(".sd-col")].map(card);
    const offered = filters(cards);
    const form = Object.assign(document.createElement("form"), { className: "gallery-filters" });
    form.setAttribute("role", "search");
    const search = Object.assign(document.createElement("input"), {
      type: "search", name: "q", autocomplete: "off",
    });
    const count = document.createElement("output");
    const reset = Object.assign(document.createElement("button"), { type: "reset", textContent: "Show all" });
    form.append(control("Search", search));
    form.append(...offered.map((filter) => control(filter.words, select(filter))));
    form.append(count, reset);

    const update = () => {
      const chosen = Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
      const wanted = (chosen.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
      for (const c of cards) {
        c.box.hidden = !wanted.every((word) => c.text.includes(word))
          || !offered.every(({ name, passes }) => !chosen[name] || passes(c, chosen[name]));
      }
      const left = cards.filter((c) => !c.box.hidden).length;
      count.textContent = left === cards.length
        ? `${left} chapters` : `${left} of ${cards.length} chapters`;
      reset.hidden = !Object.keys(chosen).length;
      return chosen;
    };

    const keep = () => {
      const address = new URLSearchParams(update()).toString();
      history.replaceState(null, "", address ? `#${address}` : location.pathname);
    };
    form.addEventListener("input", keep);
    form.addEventListener("reset", () => setTimeout(keep));
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const [name, value] of new URLSearchParams(location.hash.slice(1)))
      if (form.elements[name]) form.elements[name].value = value;
    gallery.before(form);
    update();
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".gallery.filtered").forEach(start);
  });
})();
