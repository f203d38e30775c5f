// Live updates: when the server says that something changed, the parts of the page that show it are loaded anew. Without this script
// the page works the same; it is then as old as its last load.
"use strict";

(() => {
  const main = document.querySelector("main[data-watch]");
  if (!main || !("EventSource" in window)) return;
  const announce = document.getElementById("announce");
  let loading = false;
  let again = false;

  async function refresh() {
    if (loading) { again = true; return; }
    loading = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) replace(part, fresh.getElementById(part.id));
    } catch {
      // The console has ended, or is busy; the next change tries again.
    } finally {
      loading = false;
      if (again) { again = false; refresh(); }
    }
  }

  function replace(part, fresh) {
    if (!fresh || fresh.innerHTML === part.innerHTML) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    const open = [...part.querySelectorAll("details")].map((one) => one.open);
    const changed = fresh.dataset.summary !== part.dataset.summary;
    part.replaceWith(document.adoptNode(fresh));
    [...fresh.querySelectorAll("details")].forEach((one, place) => { one.open = open[place] || one.open; });
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    if (changed) announce.textContent = fresh.dataset.summary;
  }

  const events = new EventSource(main.dataset.watch);
  events.addEventListener("change", refresh);
  addEventListener("pagehide", () => events.close());
})();
