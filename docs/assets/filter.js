// Filter the table below a form.filters; the choice is kept in the address.
for (const form of document.querySelectorAll("form.filters")) {
  const rows = [...form.nextElementSibling.querySelectorAll("tbody tr")];
  const selects = [...form.querySelectorAll("select")];

  const apply = () => {
    for (const row of rows) {
      row.hidden = !selects.every(
        ({ name, value }) => !value || row.dataset[name].split(" ").includes(value),
      );
    }
    const shown = rows.filter((row) => !row.hidden).length;
    form.querySelector("output").value = `${shown} of ${rows.length} ${form.dataset.noun}`;
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
  form.hidden = false;
  apply();
}
