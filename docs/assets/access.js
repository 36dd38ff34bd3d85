// The theme puts a landmark of no name around each code block's copy button.
new MutationObserver(() => {
  document.querySelectorAll("nav.md-code__nav").forEach((nav, number) => {
    const name = `Code block ${number + 1}`;
    if (nav.ariaLabel !== name) nav.ariaLabel = name;
  });
}).observe(document.body, { childList: true, subtree: true });
