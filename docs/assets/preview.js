// On a link to a note: its title and summaries, read from the note's own page.
{
  const card = Object.assign(document.createElement("div"), {
    className: "preview md-typeset", id: "preview", role: "tooltip", hidden: true,
  });
  const known = new Map(); // what was read, by address
  let timer, shown;
  const noteOf = ({ target }) => {
    const link = target.closest?.("article a[href]");
    const path = link instanceof HTMLAnchorElement && link.origin === location.origin
      && link.pathname !== location.pathname && !link.closest(".bar, .headerlink")
      && link.pathname.match(/^(?:.*\/)?papers\/[a-z]+\d{4}[a-z]*\/$/);
    return path ? link : null;
  };

  const read = async (url) => {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${answer.status}: ${url}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const title = document.createElement("strong");
    title.textContent = page.querySelector(".paper h1").textContent;
    return [title, ...page.querySelectorAll(".paper__summary")];
  };

  const hide = () => {
    clearTimeout(timer);
    shown?.removeAttribute("aria-describedby");
    shown = null;
    card.hidden = true;
  };

  const show = async (link) => {
    const url = link.origin + link.pathname;
    shown = link;
    if (!known.has(url)) known.set(url, read(url));
    const content = await known.get(url).catch(() => null); // then there is no preview
    if (!content) known.delete(url);
    if (!content || shown !== link) return;
    card.replaceChildren(...content);
    card.hidden = false;
    link.setAttribute("aria-describedby", card.id);
    const place = link.getClientRects()[0];
    const right = document.documentElement.clientWidth - card.offsetWidth - 8;
    const below = place.bottom + card.offsetHeight + 8 < innerHeight;
    card.style.left = `${scrollX + Math.max(8, Math.min(place.left, right))}px`;
    card.style.top = `${scrollY + (below ? place.bottom : place.top - card.offsetHeight)}px`;
  };

  const soon = (action, delay) => { clearTimeout(timer); timer = setTimeout(action, delay); };
  const enter = (delay) => (event) => {
    const link = noteOf(event);
    if (link && link !== shown) { hide(); soon(() => show(link), delay); }
    else if (link || card.contains(event.target)) clearTimeout(timer); // one may point at the card
    else if (shown || timer) soon(hide, 200);
  };
  document.addEventListener("pointerover", enter(300));
  document.addEventListener("focusin", enter(0));
  document.addEventListener("keydown", ({ key }) => { if (key === "Escape") hide(); });
  document.body.append(card);
}
