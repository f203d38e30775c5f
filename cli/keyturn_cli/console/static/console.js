// Live updates: when the server says that something changed, the parts of the page that show it are loaded anew. Without this script
// the page works the same; it is then as old as its last load.
"use strict";

(() => {
  const main = document.querySelector("main[data-watch]");
  if (!main || !("EventSource" in window)) return;
  const announce = document.getElementById("announce");
  const LOOK_MS = 5000;
  const address = new URL(main.dataset.watch, location.href);
  let events = null;
  let failures = 0;
  let over = false;
  let loading = false;
  let again = false;

  async function refresh() {
    if (loading) { again = true; return; }
    loading = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      // Whoever knows nothing of this path is another console, at the same port.
      if (answer.status === 404) end(fresh.getElementById("problem") ? "gone" : "ended");
      if (!answer.ok) return;
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

  // What the page shows is not there any more: nothing on it can be done.
  function end(why) {
    over = true;
    close();
    for (const button of main.querySelectorAll("button")) button.disabled = true;
    document.getElementById(why).hidden = false;
  }

  function close() {
    events?.close();
    events = null;
  }

  // A browser opens six connections to a host, for all of its tabs together, and each listener holds one. So only pages that are seen
  // listen; one that comes to the front again says what it saw last, and is told at once if there is something newer. Where many
  // windows are seen side by side, the server lets the first few listen, and the others look from time to time.
  function listen() {
    if (events || over || document.hidden) return;
    const opened = new EventSource(address);
    events = opened;
    opened.addEventListener("open", () => { failures = 0; document.getElementById("ended").hidden = true; });
    opened.addEventListener("change", (event) => { address.searchParams.set("seen", event.data); refresh(); });
    opened.addEventListener("error", () => {
      if (opened.readyState !== EventSource.CLOSED) {
        // One failure is a hiccup, such as a laptop's sleep; the browser tries again after three seconds.
        failures += 1;
        if (failures > 1) document.getElementById("ended").hidden = false;
      } else if (events === opened) {
        close();
        setTimeout(() => { if (!document.hidden && !over) refresh(); listen(); }, LOOK_MS);
      }
    });
  }

  document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else listen(); });
  addEventListener("pagehide", close);
  addEventListener("pageshow", listen);
  listen();
})();
