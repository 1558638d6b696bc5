/* The page of `geosweep watch`: asks for what is new, and shows progress, failures and the log. */
"use strict";

const $ = id => document.getElementById(id);
let charts = null;  // until the library is there, which is large
let state = { axes: [], trials: new Map(), curves: new Map() };
let run = "", version = 0, log = [];

function duration(seconds) {
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60);
  if (whole < 60) return `${whole} s`;
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function label(trial) {
  const known = state.trials.get(trial);
  return known ? labelOf(state.axes, known) : trial;
}

function showHead(news) {
  const counts = {};
  for (const trial of state.trials.values()) counts[trial.status] = (counts[trial.status] || 0) + 1;
  const planned = Math.max(news.planned, state.trials.size);
  const done = (counts.done || 0) + (counts.diverged || 0) + (counts.stopped || 0), failed = counts.failed || 0;
  const complete = planned > 0 && done >= planned;
  document.title = `${news.running ? `${done}/${planned} ` : ""}${news.name}: geosweep`;
  $("name").textContent = news.name;
  $("folder").textContent = news.folder;
  const words = news.running ? "running" : complete ? "complete" : "not running";
  $("state").textContent = words;
  $("state").className = `pill ${news.running ? "is-running" : complete ? "is-done" : ""}`;
  const share = count => `${100 * count / Math.max(1, planned)}%`;
  $("bar-done").style.width = share(done);
  $("bar-running").style.width = share(counts.running || 0);
  $("bar-failed").style.width = share(failed);
  $("bar").setAttribute("aria-valuenow", done);
  $("bar").setAttribute("aria-valuemax", planned);
  const parts = [`${done} of ${planned} trials done`];
  for (const kind of ["running", "interrupted", "failed", "diverged", "stopped"]) if (counts[kind]) parts.push(`${counts[kind]} ${kind}`);
  $("counts").textContent = parts.join(", ");
  const { seconds_left: left, started_at: started, written_at: written } = news.progress;
  const times = [];
  if (news.running && left !== null) times.push(`about ${duration(left)} left`);
  if (news.running && started) times.push(`${duration(Math.max(0, news.now - started))} so far`);
  if (!news.running && !complete && written) times.push(`last heard of ${duration(Math.max(0, news.now - written))} ago`);
  $("times").textContent = times.join(", ");
}

function showRunning() {
  const running = [...state.trials.values()].filter(trial => trial.status === "running");
  $("running").hidden = !running.length;
  $("running").replaceChildren(...running.slice(0, 40).map(trial => {
    const row = element("div", undefined, { class: "trial" }), bar = element("span", undefined, { class: "mini" }), part = element("i");
    part.style.width = `${100 * Math.max(0, trial.epoch || 0) / Math.max(1, trial.epochs || 1)}%`;
    bar.append(part);
    row.append(element("span", label(trial.trial), { class: "what" }), bar, element("span", `epoch ${trial.epoch ?? 0} of ${trial.epochs ?? "?"}`, { class: "soft" }));
    return row;
  }));
}

function showFailed() {
  const failed = [...state.trials.values()].filter(trial => trial.error);
  $("failed").hidden = !failed.length;
  const open = new Set([...document.querySelectorAll("#failures details[open]")].map(one => one.dataset.trial));
  $("failures").replaceChildren(...failed.slice(0, 200).map(trial => {
    const lines = trial.error.trim().split("\n"), box = element("details", undefined, { "data-trial": trial.trial });
    const head = element("summary");
    head.append(element("b", label(trial.trial)), ` ${trial.trial}: `, element("span", lines.at(-1).slice(0, 300), { class: "is-failed" }));
    box.append(head, element("pre", trial.error));
    box.open = open.has(trial.trial);
    return box;
  }));
  $("failed-count").textContent = failed.length;
}

function showLog() {
  const box = $("log"), below = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  const two = number => String(number).padStart(2, "0");
  box.textContent = log.map(([at, text, trial]) => {
    const time = new Date(at * 1000), today = time.toDateString() === new Date().toDateString();
    const day = today ? "" : `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} `;
    return `${day}${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}  ${text}${trial ? `  ${label(trial)}` : ""}`;
  }).join("\n") || "nothing yet";
  if (below) box.scrollTop = box.scrollHeight;
}

function show(news) {
  const fresh = news.whole || news.trials.length || Object.keys(news.curves).length || news.axes.join() !== state.axes.join();
  state = merged(state, news);
  if (news.log) log = news.log;
  run = news.run;
  version = news.version;
  showHead(news);
  if (fresh) { showRunning(); showFailed(); }
  if (fresh || news.log) showLog();
  $("damaged").hidden = !news.damaged.length;
  $("damaged").textContent = news.damaged.join("\n");
  if (fresh) charts?.update(state);
  document.body.dataset.version = version;
}

async function ask() {
  let wait = 2;
  if (!document.hidden) {
    try {
      const answer = await fetch(`data?run=${run}&since=${version}`, { cache: "no-store" });
      const news = await answer.json();
      if (news.error) throw new Error(news.error);
      $("problem").hidden = true;
      show(news);
      wait = Math.max(news.every, 3 * (charts?.cost ?? 0) / 1000);  // drawing takes a fourth of the time at most
    } catch (error) {
      $("problem").hidden = false;
      $("problem").textContent = error instanceof TypeError ? "geosweep watch does not answer; start it again." : error.message;
    }
  }
  setTimeout(ask, 1000 * wait);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) charts?.draw(); });
document.addEventListener("DOMContentLoaded", () => {
  charts = new Charts($("charts"));
  if (version) charts.update(state);
});
ask();
