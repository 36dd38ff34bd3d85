// Bring the interactive figures to life once they come into view; until then, in print and
// where anything fails, the reader has the still picture.
{
  const vendor = new URL("vendor/", document.currentScript.src);
  const wide = 620; // pixels that two panels side by side take

  function load(path) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(path, vendor);
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${script.src} is missing`));
      document.head.append(script);
    });
  }

  let library;
  const vega = () =>
    (library ??= load("vega/vega.min.js").then(() => load("vega-lite/vega-lite.min.js")));

  // Text and lines take the colours of the page, light or dark.
  function config() {
    const style = getComputedStyle(document.body);
    const of = (name) => style.getPropertyValue(name).trim();
    const text = of("--md-default-fg-color--light");
    const line = of("--line");
    return {
      background: null,
      font: of("--md-text-font"),
      view: { stroke: null },
      axis: {
        domainColor: text,
        gridColor: line,
        labelColor: text,
        labelFontSize: 12,
        tickColor: text,
        titleColor: text,
        titleFontSize: 12,
        titleFontWeight: "normal",
      },
      legend: { labelColor: text, labelFontSize: 12 },
      text: { color: text, fontSize: 12 },
    };
  }

  async function start(figure) {
    const live = figure.querySelector(".interactive__live");
    const says = figure.querySelector(".interactive__says");
    const response = await fetch(figure.dataset.spec);
    if (!response.ok) throw new Error(`${response.status}: ${response.url}`);
    const spec = await response.json();
    await vega();
    const inputs = spec.params.filter(({ bind }) => bind).map(({ name }) => name);
    let view;
    let columns;

    const speak = () => {
      const marks = live.querySelectorAll("[class*='says'] [aria-label]");
      says.textContent = [...marks].map((mark) => mark.getAttribute("aria-label")).join(" ");
    };

    // Draw, at first and again whenever the colours or the room change; sliders stay where
    // they are.
    const draw = async () => {
      columns = figure.clientWidth < wide ? 1 : 2;
      const kept = view ? inputs.map((name) => [name, view.signal(name)]) : [];
      view?.finalize();
      const compiled = vegaLite.compile({ ...spec, columns, config: config() }).spec;
      view = new globalThis.vega.View(globalThis.vega.parse(compiled), {
        bind: figure.querySelector(".interactive__controls"),
        container: live,
        renderer: "svg",
      });
      for (const [name, value] of kept) view.signal(name, value);
      await view.runAsync();
      for (const name of inputs) {
        // The marks change after the callbacks of a run, in the same task.
        view.addSignalListener(name, () => view.runAfter(() => setTimeout(speak)));
      }
      speak();
      figure.view = view;
    };

    await draw();
    figure.classList.add("interactive--live");
    let last = Promise.resolve();
    const redraw = () => (last = last.then(draw));
    new MutationObserver(redraw).observe(document.body, {
      attributeFilter: ["data-md-color-scheme"],
    });
    new ResizeObserver(() => {
      if (figure.clientWidth && columns !== (figure.clientWidth < wide ? 1 : 2)) redraw();
    }).observe(figure);
  }

  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        start(target).catch((error) => console.warn("The still picture stays:", error));
      }
    },
    { rootMargin: "200px" },
  );
  for (const figure of document.querySelectorAll("figure.interactive")) seen.observe(figure);
}
