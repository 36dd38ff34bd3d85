// The theme makes landmarks of no name: around each code block's copy button,
// and around the authors of each result of the search.
const names = { "nav.md-code__nav": "Code block", "nav.md-tags": "Authors of result" };
const mend = () => {
  for (const [landmark, kind] of Object.entries(names)) {
    document.querySelectorAll(landmark).forEach((nav, number) => {
      const name = `${kind} ${number + 1}`;
      if (nav.ariaLabel !== name) nav.ariaLabel = name;
    });
  }
};
mend();
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });

// What a page lets the keyboard scroll is one stop less where it need not be.
const scrolls = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
document.fonts.ready.then(() => {
  document.querySelectorAll("div.arithmatex").forEach((formula) => scrolls.observe(formula));
});
