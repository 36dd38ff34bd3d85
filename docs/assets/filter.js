// Filter the table below a form.filters; the choice is kept in the address.
for (const form of document.querySelectorAll("form.filters")) {
  const rows = [...form.nextElementSibling.querySelectorAll("tbody tr")];
  const selects = [...form.querySelectorAll("select")];

  // To lay out thousands of rows takes seconds: those that fill a screen come first, and the
  // others in the frames that follow.
  const AT_ONCE = 100;
  let frame;
  const show = (left) => {
    for (const row of left.splice(0, AT_ONCE)) row.hidden = false;
    if (left.length) frame = requestAnimationFrame(() => show(left));
  };

  const apply = () => {
    const found = rows.filter((row) => selects.every(
      ({ name, value }) => !value || row.dataset[name].split(" ").includes(value),
    ));
    const first = new Set(found.slice(0, AT_ONCE));
    cancelAnimationFrame(frame);
    if (found.length < rows.length || rows.some((row) => row.hidden)) {
      for (const row of rows) row.hidden = !first.has(row);
      show([...found]);
    }
    form.querySelector("output").value = `${found.length} of ${rows.length} ${form.dataset.noun}`;
  };

  const given = new URLSearchParams(location.search);
  for (const select of selects) {
    const value = given.get(select.name);
    if ([...select.options].some((option) => option.value === value)) select.value = value;
  }
  form.addEventListener("change", () => {
    const query = new URLSearchParams(
      selects.filter(({ value }) => value).map(({ name, value }) => [name, value]),
    );
    history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
    apply();
  });
  apply();
}
