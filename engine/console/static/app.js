"use strict";
// All works without this: links, forms, pages. It keeps pages fresh, counts down, and adds keys.
(() => {
  const main = () => document.querySelector("main");
  const every = 10000;
  let busy = false;

  // --- fresh: what is shown is asked for again, unless somebody is at work on it
  const atWork = () => {
    const at = document.activeElement;
    return busy || document.querySelector("details[open] form, dialog[open], input:checked") !== null ||
      (at !== null && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName));
  };
  const refresh = async () => {
    if (document.hidden || atWork() || !main() || !main().dataset.live) return;
    try {
      const answer = await fetch(location.href, { headers: { "X-Live": main().dataset.live }, credentials: "same-origin", cache: "no-store" });
      if (answer.status === 204) { document.body.classList.remove("stale"); return; }
      if (answer.redirected || answer.status === 401) { location.reload(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      if (fresh === null || atWork()) return;
      const row = document.activeElement && document.activeElement.id;
      main().replaceWith(fresh);
      if (row) { const again = document.getElementById(row); if (again) again.focus({ preventScroll: true }); }
      document.body.classList.remove("stale");
    } catch (_) {
      document.body.classList.add("stale");
    }
  };
  setInterval(refresh, every);
  document.addEventListener("visibilitychange", refresh);

  // --- countdowns, by the server's clock: that of this machine may be wrong
  const server = Date.parse(document.documentElement.dataset.now || "");
  const ahead = Number.isNaN(server) ? 0 : server - Date.now();
  const said = (seconds) => {
    const s = Math.abs(seconds);
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 172800) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} d`;
  };
  setInterval(() => {
    for (const one of document.querySelectorAll("time[data-until]")) {
      const seconds = Math.round((Date.parse(one.dateTime) - Date.now() - ahead) / 1000);
      if (Number.isNaN(seconds)) continue;
      one.textContent = seconds > 0 ? `in ${said(seconds)}` : `${said(seconds)} late`;
      one.classList.toggle("late", seconds <= 0);
    }
  }, 1000);

  // --- keys: j and k go from row to row, Enter opens, / searches, ? tells
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = document.activeElement;
    if (at !== null && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName)) return;
    const rows = [...document.querySelectorAll("[data-row]")];
    const here = rows.findIndex((row) => row === at || row.contains(at));
    if (event.key === "j" && rows.length) rows[Math.min(here + 1, rows.length - 1)].focus();
    else if (event.key === "k" && rows.length) rows[Math.max(here - 1, 0)].focus();
    else if (event.key === "Enter" && at !== null && at.dataset && at.dataset.row) location.assign(at.dataset.row);
    else if (event.key === "/") { const box = document.querySelector("[data-search]"); if (box) { box.focus(); event.preventDefault(); } }
    else if (event.key === "?") { const help = document.querySelector("dialog.keys"); if (help) help.showModal(); }
  });

  // --- one click is one act
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "1";
    busy = true;
  });
  // --- all rows of a page
  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-all]")) return;
    for (const box of document.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
  });
})();
