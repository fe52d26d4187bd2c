// The demo's page: phones, clock and outbox, drawn from one stream of events.
"use strict";

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

async function post(path, body) {
  try {
    const answer = await fetch(`/demo/api/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return answer.ok;
  } catch {
    return false;
  }
}

// - phones -

const state = { run: null, phones: new Map(), screens: new Map(), bubbles: new Map(), tab: null };

class Screen {
  // What one person sees: a talk, an unread count, the words to tap.
  constructor(person) {
    this.person = person;
    this.talk = make("ol", { class: "talk", role: "log", "aria-label": `${person.title}的对话`, tabindex: "0" });
    this.unread = 0;
    this.last = null;
    this.waiting = null;
  }

  add(bubble, fresh) {
    const near = this.talk.scrollHeight - this.talk.scrollTop - this.talk.clientHeight < 90;
    if (bubble.mine || !this.waiting) this.rest();
    this.timestamp(bubble);
    const same = this.last && this.last.who === bubble.who && this.last.mine === bubble.mine;
    const bot = !bubble.mine && bubble.who === botName();
    const body = make("div", { class: "body" });
    if (this.person.group && !bubble.mine && !same) body.append(make("span", { class: "who" }, bubble.who));
    if (bubble.text) body.append(make("div", { class: fresh ? "bubble new" : "bubble" }, ...linked(bubble.text)));
    if (bubble.file) {
      body.append(make("a", { class: "file", href: `/demo/file/${bubble.id}`, download: bubble.file }, `📎 ${bubble.file}`));
    }
    if (bubble.choices.length) body.append(this.choices(bubble));
    const face = make("span", { class: bot ? "avatar bot" : "avatar", "aria-hidden": "true" }, bot ? bubble.who.slice(-1) : bubble.who.slice(0, 1));
    const row = make("li", { class: `said${bubble.mine ? " mine" : ""}${same ? " same" : ""}` }, face, body);
    row.prepend(make("span", { class: "hidden" }, `${bubble.mine ? "我" : bubble.who}说：`));
    if (this.waiting && !bubble.mine) {
      this.rest();
    }
    this.talk.append(row);
    this.last = bubble;
    if (bubble.mine || near || !fresh) this.bottom(row);
    if (fresh && !bubble.mine && !isShown(this)) {
      this.unread += 1;
      drawUnread();
    }
  }

  timestamp(bubble) {
    const at = new Date(bubble.at);
    const before = this.last && new Date(this.last.at);
    if (before && Math.abs(at - before) < 5 * 60 * 1000) return;
    const [day, time] = [bubble.at.slice(0, 10), bubble.at.slice(11, 16)];
    const [, month, date] = day.split("-").map(Number);
    this.talk.append(make("li", { class: "when" }, `${month}月${date}日 ${time}`));
    this.last = null;
  }

  choices(bubble) {
    const row = make("div", { class: "choices", role: "group", "aria-label": "可以选" });
    bubble.choices.forEach((label, number) => {
      const press = () => {
        this.wait();
        post("press", { user: this.person.user, bubble: bubble.id, number }).then((done) => this.answered(done));
      };
      row.append(make("button", { type: "button", disabled: bubble.spent, onclick: press }, label));
    });
    state.bubbles.set(bubble.id, row);
    return row;
  }

  async say(text) {
    this.wait();
    this.answered(await post("say", { user: this.person.user, text }));
  }

  wait() {
    // Only a slow answer shows the dots: most are there before the eye is.
    this.soon = setTimeout(() => {
      if (this.waiting) return;
      const dots = make("span", { class: "dots", "aria-label": "正在回复" }, make("i"), make("i"), make("i"));
      this.waiting = make("li", { class: "said same" }, make("span", { class: "avatar" }), dots);
      this.talk.append(this.waiting);
      this.bottom();
    }, 250);
  }

  rest() {
    clearTimeout(this.soon);
    this.waiting?.remove();
    this.waiting = null;
  }

  answered(done) {
    this.rest();
    if (!done) tell("没有送到，请再发一次。", 4000);
  }

  bottom(row = this.talk.lastChild) {
    // What is longer than the screen is read from its beginning.
    const tall = row && !row.classList.contains("mine") && row.offsetHeight > this.talk.clientHeight;
    this.talk.scrollTop = tall ? row.offsetTop - 8 : this.talk.scrollHeight;
  }
}

class Phone {
  // One phone; several people may share it by a switch.
  constructor(key) {
    this.key = key;
    this.screens = [];
    this.name = make("h2");
    this.subtitle = make("p");
    this.face = make("span", { class: "avatar", "aria-hidden": "true" });
    this.switch = make("div", { class: "switch", role: "group", "aria-label": "换人", hidden: true });
    this.holder = make("div", { class: "holder" });
    this.tries = make("div", { class: "tries", role: "group", "aria-label": "试着说" });
    this.input = make("textarea", { rows: "1", placeholder: "说点什么", maxlength: "4000", enterkeyhint: "send" });
    const form = make("form", {}, this.input, make("button", { class: "send", type: "submit" }, "发送"));
    form.addEventListener("submit", (event) => this.submit(event));
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.submit(event);
    });
    this.input.addEventListener("input", () => this.fit());
    const head = make("header", {}, this.face, make("div", {}, this.name, this.subtitle));
    this.element = make("section", { class: "phone", "data-phone": key }, head, this.switch, this.holder, this.tries, form);
  }

  add(screen) {
    this.screens.push(screen);
    const button = make("button", { type: "button", onclick: () => this.show(screen) }, screen.person.title, make("span"));
    screen.button = button;
    this.switch.append(button);
    this.switch.hidden = this.screens.length < 2;
    if (this.screens.length === 1) this.show(screen);
  }

  show(screen) {
    this.current = screen;
    const person = screen.person;
    this.name.textContent = person.title;
    this.subtitle.textContent = person.subtitle;
    this.face.textContent = person.group ? "群" : person.title.slice(0, 1);
    this.element.setAttribute("aria-label", `${person.title}的手机`);
    this.input.setAttribute("aria-label", `以${person.title}的手机说话`);
    this.holder.replaceChildren(screen.talk);
    this.tries.replaceChildren(
      ...person.tries.map((text) => make("button", { type: "button", onclick: () => screen.say(text) }, text)),
    );
    for (const each of this.screens) each.button.setAttribute("aria-pressed", String(each === screen));
    screen.unread = 0;
    drawUnread();
    screen.bottom();
  }

  submit(event) {
    event.preventDefault();
    const text = this.input.value.trim();
    if (!text) return;
    this.input.value = "";
    this.fit();
    this.current.say(text);
  }

  draft(text) {
    this.input.value = text;
    this.fit();
  }

  fit() {
    this.input.style.height = "";
    if (this.input.scrollHeight > this.input.clientHeight + 2) this.input.style.height = `${this.input.scrollHeight + 2}px`;
  }
}

function botName() {
  return state.bot;
}

function linked(text) {
  // Addresses become links; 「说明：http…」 on a line of its own shows its words instead.
  const nodes = [];
  text.split("\n").forEach((line, number) => {
    if (number) nodes.push("\n");
    const titled = line.match(/^(.{1,30})：(https?:\/\/\S+)$/);
    if (titled) {
      nodes.push(link(titled[2], `${titled[1]} ›`));
      return;
    }
    for (const piece of line.split(/(https?:\/\/[^\s，。）」]+)/)) {
      if (/^https?:\/\//.test(piece)) nodes.push(link(piece, piece));
      else if (piece) nodes.push(piece);
    }
  });
  return nodes;
}

const link = (address, words) => make("a", { href: address, target: "_blank", rel: "noopener" }, words);

function isShown(screen) {
  const phone = state.phones.get(screen.person.phone);
  return phone.current === screen && phone.element.offsetParent !== null;
}

function badge(count) {
  return count ? [make("span", { class: "unread", "aria-label": `${count}条未读` }, String(count))] : [];
}

function drawUnread() {
  for (const screen of state.screens.values()) screen.button.lastChild.replaceChildren(...badge(screen.unread));
  for (const button of byId("tabs").children) {
    const phone = state.phones.get(button.dataset.tab);
    if (!phone) continue;
    button.lastChild.replaceChildren(...badge(phone.screens.reduce((sum, screen) => sum + screen.unread, 0)));
  }
}

function openTab(key) {
  state.tab = key;
  for (const button of byId("tabs").children) button.setAttribute("aria-pressed", String(button.dataset.tab === key));
  for (const [name, phone] of state.phones) phone.element.classList.toggle("shown", name === key);
  byId("outbox").classList.toggle("shown", key === "outbox");
  byId("phones").classList.toggle("away", key === "outbox");
  const phone = state.phones.get(key);
  if (phone) phone.show(phone.current);
}

// - everything anew -

function drawAll(event) {
  const again = state.run !== null && state.run !== event.run;
  const kept = state.run === event.run ? state.tab : null;
  const people = new Map([...state.phones].map(([key, phone]) => [key, phone.current.person.user]));
  // What somebody is writing outlives a lost connection.
  const drafts = new Map([...state.phones].map(([key, phone]) => [key, phone.input.value]));
  const writing = [...state.phones.values()].find((phone) => phone.input === document.activeElement)?.key;
  state.run = event.run;
  state.bot = event.bot;
  state.phones.clear();
  state.screens.clear();
  state.bubbles.clear();
  for (const person of event.phones) {
    if (!state.phones.has(person.phone)) state.phones.set(person.phone, new Phone(person.phone));
    const screen = new Screen(person);
    state.screens.set(person.user, screen);
    state.phones.get(person.phone).add(screen);
  }
  byId("phones").replaceChildren(...[...state.phones.values()].map((phone) => phone.element));
  const tabs = [...state.phones.values()].map((phone) => [phone.key, phone.screens[0].person.tab]);
  byId("tabs").replaceChildren(
    ...[...tabs, ["outbox", "发件箱"]].map(([key, label]) =>
      make("button", { type: "button", "data-tab": key, onclick: () => openTab(key) }, label, make("span")),
    ),
  );
  drawGuide(event.guide);
  openTab(kept ?? event.phones[0].phone);
  for (const bubble of event.bubbles) state.screens.get(bubble.user)?.add(bubble, false);
  for (const [key, user] of people) {
    const screen = state.screens.get(user);
    if (!again && screen) state.phones.get(key)?.show(screen);
  }
  for (const [key, text] of drafts) state.phones.get(key)?.draft(text);
  state.phones.get(writing)?.input.focus({ preventScroll: true });
  for (const screen of state.screens.values()) screen.bottom();
  drawClock(event.clock);
  drawOutbox(event.outbox);
  if (again) tell("演示重新开始了，先前的对话已经清除。", 6000);
  else tell("");
}

function drawGuide(guide) {
  const steps = guide.map(([label, user, text, move]) => {
    const go = async () => {
      const screen = state.screens.get(user);
      const phone = state.phones.get(screen.person.phone);
      openTab(screen.person.phone);
      phone.show(screen);
      phone.input.focus({ preventScroll: true });
      if (move && !(await moveClock(move))) return;
      screen.say(text);
    };
    return make("button", { type: "button", onclick: go }, label);
  });
  byId("guide").replaceChildren(make("span", {}, "试试看"), ...steps);
}

// - clock -

const clock = { at: null, seen: 0 };

function drawClock(event) {
  clock.at = event.at;
  clock.seen = performance.now();
  byId("day").textContent = `${event.day} ${event.weekday}`;
  byId("lunar").textContent = event.lunar;
  const moving = event.moving !== null;
  for (const button of document.querySelectorAll(".moves button")) button.disabled = moving;
  const bar = document.querySelector(".progress");
  bar.hidden = !moving;
  if (moving) {
    const share = Math.round(event.moving * 100);
    bar.setAttribute("aria-valuenow", String(share));
    bar.firstChild.style.width = `${share}%`;
  }
  drawTime();
}

function drawTime() {
  if (!clock.at) return;
  // The stamp is Beijing time; shifting it keeps the reader's own zone out of it.
  const wall = Date.parse(`${clock.at.slice(0, 19)}Z`) + performance.now() - clock.seen;
  byId("time").textContent = new Date(wall).toISOString().slice(11, 16);
}

async function moveClock(to) {
  const moved = await post("clock", { to });
  if (!moved) tell("时钟没有拨动，请再试一次。", 4000);
  return moved;
}

// - outbox -

const drawn = new Map();

function drawOutbox(event) {
  byId("totals").replaceChildren(
    ...event.totals.map((total) => make("li", { class: `chip ${total.tone}` }, `${total.state} ${total.count}`)),
  );
  drawCampaign(event.campaign);
  byId("no-rows").hidden = event.rows.length > 0;
  const rows = event.rows.map((row) => {
    const line = drawn.get(row.id) ?? makeRow(row.id);
    const [, what, to, by, at, mark] = line.children;
    what.textContent = row.what;
    to.textContent = row.to;
    by.textContent = row.by;
    at.textContent = row.at;
    mark.firstChild.className = `chip ${row.tone}`;
    mark.firstChild.textContent = row.reason ? `${row.state} · ${row.reason}` : row.state;
    return line;
  });
  drawn.clear();
  event.rows.forEach((row, number) => drawn.set(row.id, rows[number]));
  byId("rows").replaceChildren(...rows);
}

function drawCampaign(campaign) {
  // One bar for the letter under way, a stretch for each state; the words beside it say the same.
  byId("campaign").hidden = !campaign;
  if (!campaign) return;
  const words = campaign.parts.map((part) => `${part.state} ${part.count}`);
  const bar = byId("campaign-bar");
  byId("campaign-title").textContent = campaign.title;
  bar.setAttribute("aria-label", `${campaign.title}，共${campaign.total}份：${words.join("，")}`);
  campaign.parts.forEach((part, number) => {
    const stretch = bar.children[number] ?? bar.appendChild(make("i"));
    stretch.className = part.tone;
    stretch.style.width = `${(100 * part.count) / campaign.total}%`;
  });
  while (bar.children.length > campaign.parts.length) bar.lastChild.remove();
  byId("campaign-parts").replaceChildren(
    ...campaign.parts.map((part, number) => make("li", { class: `chip ${part.tone}` }, `${words[number]}/${campaign.total}`)),
  );
}

function makeRow(id) {
  const cells = [String(id), "", "", "", ""].map((text) => make("td", {}, text));
  return make("tr", {}, ...cells, make("td", {}, make("span")));
}

// - the stream -

let fade = 0;

function tell(words, passing = 0) {
  clearTimeout(fade);
  const line = byId("status");
  line.textContent = words;
  line.hidden = !words;
  if (passing) fade = setTimeout(() => tell(""), passing);
}

const heard = {
  all: drawAll,
  bubble: (event) => state.screens.get(event.bubble.user)?.add(event.bubble, true),
  spent: (event) => {
    for (const id of event.ids) {
      for (const button of state.bubbles.get(id)?.children ?? []) button.disabled = true;
    }
  },
  clock: drawClock,
  outbox: drawOutbox,
};

function listen() {
  const stream = new EventSource("/demo/api/stream");
  stream.onmessage = (message) => {
    const event = JSON.parse(message.data);
    heard[event.kind]?.(event);
  };
  stream.onerror = () => {
    tell("已断开，正在重新连接……若演示已经结束，请重新运行 hongyan demo。");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 1500);
  };
}

for (const button of document.querySelectorAll(".moves button")) {
  button.addEventListener("click", () => moveClock(button.dataset.to));
}
setInterval(drawTime, 1000);
listen();
