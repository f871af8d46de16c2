// The review desk. The next reply is fetched while this one is judged, so a key press shows it at once; what was entered
// is kept in this tab until the server says it is saved, and comes back if it can't be.

import { Problem, get, lines, post } from './calls.js';
import { dialog, el, typing } from './dom.js';
import { Form, QUESTIONS, asSaid, empty, shows } from './form.js';
import { fromServer, pieces, selected, toServer, words } from './marks.js';
import { HELP, keysOf } from './keys.js';

const SPEAKERS = { user: 'Customer', assistant: 'Model', system: 'Instructions' };
const RENEW_MS = 20_000; // no more often than this; a queue may hold a reply for a minute only
const TAGS = { same: 'span', added: 'ins', removed: 'del' };
const store = window.sessionStorage;

const difference = (pieces) => el('div', { className: 'ts-diff', dir: 'auto' }, pieces.map(([kind, text]) => el(TAGS[kind], { textContent: text })));

// What one turn says; a model that stopped at once said nothing, and there is nothing to judge.
const said = (text) => el('div', { className: 'ts-said', dir: 'auto' }, text.trim() ? text : el('span', { className: 'desk-quiet', textContent: 'Nothing was said.' }));

class Desk {
  constructor(box) {
    this.box = box;
    this.item = null;
    this.ahead = []; // replies held for us, next first
    this.leaving = new Set(); // replies whose save or skip is on its way: the server may still count them as ours
    this.queue = new URLSearchParams(location.search).get('queue') || 'main';
  }

  async start() {
    try {
      this.setting = await get('start');
    } catch (problem) {
      this.box.replaceChildren(this.emptyState(problem.found, problem.next, '/charter', 'Open the charter'));
      return;
    }
    this.layOut();
    const wanted = new URLSearchParams(location.search).get('reply');
    if (!this.setting.may_judge && !wanted) {
      this.finished('You can look, but not judge', 'Ask an admin for the reviewer role on the Team page, or find a reply to read.', '/find', 'Go to Find');
      return;
    }
    await this.attempt(async () => (wanted ? this.openOther(wanted) : this.show(await this.fetchNext())));
    this.box.setAttribute('aria-busy', 'false');
    this.count();
    for (const sign of ['keydown', 'input', 'pointerdown', 'wheel']) document.addEventListener(sign, () => this.atWork(), { capture: true, passive: true });
    setInterval(() => this.sendKept(), 3000);
  }

  // ---- Getting work

  async fetchNext() {
    const here = [this.item, ...this.ahead].filter(Boolean).map((item) => item.reply_id);
    const open = [...here, ...this.leaving].map((id) => `&exclude=${id}`).join('');
    const { item } = await get(`next?queue=${encodeURIComponent(this.queue)}${open}`);
    if (item) item.renewed = Date.now();
    return item;
  }

  // A reply is held for whoever works on it, not for a page that was left open.
  atWork() {
    const item = this.item;
    if (!item?.act_id || this.leaving.has(item.reply_id) || Date.now() - (item.renewed ?? 0) < RENEW_MS) return;
    item.renewed = Date.now();
    post('renew', { act_id: item.act_id }).then(({ held }) => { if (!held) this.passBy(item); }).catch(() => {});
  }

  // Its hold ran out while it waited behind another one: nobody needs to judge what they can't save.
  async passBy(item) {
    if (this.item !== item || store.getItem(`desk-${item.reply_id}`)) return;
    await this.attempt(() => this.advance());
    this.say('That one was taken meanwhile');
  }

  async lookAhead() {
    if (this.ahead.length || this.fetching) return;
    this.fetching = this.fetchNext().then((item) => { if (item) this.ahead.push(item); }).catch(() => {}).finally(() => { this.fetching = null; });
    await this.fetching;
  }

  async advance() {
    const from = this.item;
    if (!this.ahead.length && this.fetching) await this.fetching;
    const next = this.ahead.shift() ?? await this.fetchNext();
    if (this.item === from) this.show(next);
    else if (next) this.ahead.unshift(next); // something else came on screen meanwhile
  }

  async count() {
    clearTimeout(this.counting);
    this.counting = setTimeout(async () => {
      const counts = await get('counts').catch(() => null);
      if (!counts) return;
      const parts = [`${counts.waiting.toLocaleString('en')} ${counts.waiting === 1 ? 'reply' : 'replies'} waiting`, `${counts.reviewed.toLocaleString('en')} reviewed`];
      if (counts.skipped) parts.push(`${counts.skipped.toLocaleString('en')} skipped`);
      this.status.textContent = parts.join(' · ');
      this.flagged.hidden = !counts.flagged;
      this.flagged.textContent = `${counts.flagged} flagged for you`;
      this.bringBack.hidden = !(counts.skipped && !this.item);
    }, 300);
  }

  // ---- Showing

  layOut() {
    this.status = el('span', { id: 'desk-counts' });
    this.flagged = el('button', { type: 'button', id: 'desk-flagged', className: 'desk-link', hidden: true, onclick: () => this.openFlagged() });
    this.bringBack = el('button', { type: 'button', id: 'desk-bring-back', className: 'desk-link', hidden: true, textContent: 'Bring back skipped replies', onclick: () => this.attempt(() => this.bringBackSkipped()) });
    this.saved = el('span', { id: 'desk-saved', role: 'status', 'aria-live': 'polite' });
    this.notice = el('div', { id: 'desk-notice' });
    this.conversation = el('div', { id: 'desk-conversation', className: 'ts-conversation' });
    this.marker = el('div', { id: 'desk-marker', className: 'desk-marker', hidden: true });
    this.editor = el('textarea', { id: 'desk-corrected', rows: 2, spellcheck: true, dir: 'auto', oninput: () => { this.grow(); this.changed(); this.compare(); } });
    this.difference = el('div', { id: 'desk-difference', 'aria-live': 'polite' });
    this.reasons = el('div', { id: 'desk-reasons', className: 'desk-chips', role: 'group', 'aria-label': 'Why did you change it?' });
    this.drafts = el('div', { id: 'desk-drafts' });
    this.questions = el('div', { id: 'desk-questions' });
    this.form = new Form(this.questions, { changed: () => { this.changed(); this.drawReply(); }, text: () => this.reply().text });
    const line = el('div', { className: 'desk-status' }, this.queues(), this.status, this.flagged, this.bringBack, el('span', { className: 'desk-gap' }), this.saved, el('span', { textContent: `Signed in as ${this.setting.who}` }), el('button', { type: 'button', className: 'desk-link', id: 'desk-keys', onclick: () => this.help() }, el('kbd', { textContent: '?' }), ' keys'));
    this.opener = el('button', { type: 'button', id: 'desk-edit', className: 'desk-quiet-button', onclick: () => this.edit() }, 'Put it right', el('kbd', { textContent: 'E', 'aria-hidden': 'true' }));
    this.paper = el('div', { className: 'desk-paper', hidden: true }, el('label', { className: 'desk-label', htmlFor: 'desk-corrected', textContent: 'As it should have been' }), this.editor, this.difference, this.reasons,
      el('div', { className: 'desk-row' }, el('button', { type: 'button', id: 'desk-as-it-was', className: 'desk-small', textContent: 'Leave it as it was', onclick: () => this.leaveAsItWas() })));
    this.correction = el('div', { className: 'desk-correction' }, this.opener, this.paper); // stands in the reply's own bubble
    const left = el('div', { className: 'desk-left' }, this.conversation, this.marker, this.drafts);
    const button = (id, text, press, key) => el('button', { type: 'button', id, onclick: press }, text, key ? el('kbd', { textContent: key, 'aria-hidden': 'true' }) : '');
    this.actions = el('div', { className: 'desk-actions', role: 'toolbar', 'aria-label': 'This reply' },
      button('desk-back', 'Back', () => this.back(), 'B'), button('desk-undo', 'Undo', () => this.undo(), 'U'), button('desk-skip', 'Skip', () => this.askSkip(), 'S'),
      button('desk-flag', 'Flag', () => this.askFlag(), 'G'), button('desk-comment', 'Comment', () => this.askComment(), 'C'), button('desk-history', 'History', () => this.showHistory(), 'H'),
      el('button', { type: 'button', id: 'desk-save', className: 'desk-primary', onclick: () => this.save() }, 'Save and next', el('kbd', { textContent: 'Ctrl ⏎', 'aria-hidden': 'true' })));
    this.work = el('div', { className: 'desk-work' }, left, this.questions);
    this.done = el('div', { id: 'desk-done', hidden: true });
    this.box.replaceChildren(line, this.notice, this.done, this.work, this.actions);
    document.addEventListener('mouseup', () => setTimeout(() => this.offerMark(), 0));
    document.addEventListener('keydown', (event) => this.onKey(event), true);
  }

  // Which queue to work on, where there is more than one.
  queues() {
    const all = Object.entries(this.setting.queues);
    if (all.length < 2) return null;
    const options = all.map(([name, waiting]) => el('option', { value: name, selected: name === this.queue, textContent: `${name} (${waiting.toLocaleString('en')} waiting)` }));
    return el('select', { id: 'desk-queue', 'aria-label': 'Queue', onchange: (event) => location.assign(`/review?queue=${encodeURIComponent(event.target.value)}`) }, options);
  }

  reply() { return this.item.turns[this.item.turns.length - 1]; }

  show(item) {
    this.item = item;
    this.notice.replaceChildren();
    this.marker.hidden = true;
    this.count();
    if (!item) return this.nothingLeft();
    for (const part of [this.work, this.actions]) part.hidden = false;
    this.done.hidden = true;
    this.box.classList.toggle('desk-read-only', !item.act_id);
    this.opened = Date.now();
    this.writing = false;
    const text = this.reply().text;
    const answers = empty();
    for (const [question, one] of Object.entries(item.mine)) {
      answers[question] = { value: one.value, clause_ids: [...one.clause_ids], severity: one.severity, kind: one.kind, spans: one.spans.map((span) => fromServer(text, span)), note: one.note };
    }
    this.tags = new Set();
    this.ranking = [];
    this.editor.value = item.text_now;
    const kept = JSON.parse(store.getItem(`desk-${item.reply_id}`) || 'null');
    if (kept) {
      Object.assign(answers, kept.answers);
      this.editor.value = kept.corrected;
      this.tags = new Set(kept.reasons);
      this.ranking = kept.ranking ?? [];
      this.opened = kept.opened ?? this.opened;
    }
    const suggestions = item.suggestions.map((one) => ({ ...one, spans: one.spans.map((span) => fromServer(text, span)) }));
    this.form.show(this.setting.charter, answers, suggestions);
    this.drawConversation();
    this.drawReasons();
    this.drawDrafts();
    this.compare();
    this.grow();
    document.getElementById('desk-reply')?.focus({ preventScroll: true });
    window.scrollTo({ top: 0 });
    document.querySelector('.desk-bubble').scrollIntoView({ block: 'nearest' }); // after a long conversation it is far down
    this.atWork();
    if (this.setting.may_judge) this.lookAhead();
  }

  nothingLeft() {
    const other = Object.entries(this.setting.queues).find(([name, waiting]) => waiting && name !== this.queue)?.[0];
    if (other) return this.finished('All caught up here', `Nothing is left for you in the queue “${this.queue}”. There is more in “${other}”.`, `/review?queue=${encodeURIComponent(other)}`, `Go to ${other}`);
    return this.finished('All caught up', 'There is nothing left for you. Make a dataset version of what was judged.', '/datasets', 'Go to Datasets');
  }

  finished(title, text, link, label) {
    for (const part of [this.work, this.actions]) part.hidden = true;
    this.done.hidden = false;
    this.done.replaceChildren(this.emptyState(title, text, link, label));
    this.box.setAttribute('aria-busy', 'false');
  }

  emptyState(title, text, link, label) {
    return el('div', { className: 'ts-empty' }, el('h3', { textContent: title }), el('p', { textContent: text }), link ? el('a', { className: 'ts-button', href: link, textContent: label }) : null);
  }

  drawConversation() {
    const { turns, after } = this.item;
    const focused = document.activeElement?.id;
    const bubble = (turn, focus) => el('div', { className: `ts-turn ts-${turn.role}${focus ? ' ts-focus' : ''}` },
      el('div', { className: 'ts-who' }, SPEAKERS[turn.role], turn.by ? el('span', { className: 'ts-badge', textContent: turn.by }) : null,
        !focus && turn.role === 'assistant' && turn.text.trim() ? el('button', { type: 'button', className: 'desk-small', textContent: 'Judge this one', onclick: () => this.openOther(turn.id) }) : null),
      focus ? el('div', { className: 'ts-said desk-bubble' }, el('div', { id: 'desk-reply', dir: 'auto', tabIndex: -1, role: 'document', 'aria-label': 'Reply to judge' }), this.correction) : said(turn.text));
    const rest = after.length ? el('details', { className: 'desk-after' }, el('summary', { textContent: `What was said after it (${after.length})` }), el('div', { className: 'ts-conversation' }, after.map((turn) => bubble(turn, false)))) : null;
    const notices = this.item.said.map((one) => el('div', { className: 'ts-notice' }, el('b', { textContent: one.who }), ` ${one.text}`));
    this.conversation.replaceChildren(...turns.map((turn, index) => bubble(turn, index === turns.length - 1)), ...(rest ? [rest] : []), ...notices);
    this.drawReply();
    if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  drawReply(cursor = null) {
    const marks = [...this.form.marks(), ...(cursor ? [{ ...cursor, question: 'cursor' }] : [])];
    const box = document.getElementById('desk-reply');
    box?.replaceChildren(...pieces(this.reply().text, marks).map(({ text, over }) => (over.length ? el('mark', { className: over.map((mark) => `desk-on-${mark.question}`).join(' '), textContent: text }) : text)));
  }

  rewritten() { return this.editor.value.trim() !== this.reply().text.trim(); }

  // The box to write in is there once somebody wants to write, or has written.
  fold() {
    const open = this.writing || this.rewritten();
    this.paper.hidden = !open;
    this.opener.hidden = open;
  }

  drawReasons() {
    this.reasons.hidden = !this.rewritten();
    this.reasons.replaceChildren(el('span', { className: 'desk-quiet', textContent: 'Why?' }), ...Object.entries(this.setting.reasons).map(([tag, label]) => el('button', {
      type: 'button', className: 'desk-chip', 'aria-pressed': String(this.tags.has(tag)), textContent: label,
      onclick: (event) => { if (this.tags.has(tag)) this.tags.delete(tag); else this.tags.add(tag); event.target.setAttribute('aria-pressed', String(this.tags.has(tag))); this.changed(); },
    })));
  }

  grow() {
    this.editor.style.height = 'auto';
    this.editor.style.height = `${Math.min(this.editor.scrollHeight + 2, 420)}px`;
  }

  compare() {
    clearTimeout(this.comparing);
    const before = this.reply().text;
    const after = this.editor.value;
    const changed = this.rewritten();
    this.fold();
    if (this.reasons.hidden === changed) this.drawReasons();
    if (!changed) { this.difference.replaceChildren(); return; }
    this.comparing = setTimeout(async () => {
      const found = await post('diff', { before, after }).catch(() => null);
      if (!found || this.editor.value !== after) return;
      this.difference.replaceChildren(el('div', { className: 'ts-who', textContent: 'What changes' }), difference(found));
    }, 120);
  }

  // ---- Drafts and ranking

  drawDrafts() {
    const { candidates } = this.item;
    const ask = el('div', { className: 'desk-draft-ask' },
      el('button', { type: 'button', id: 'desk-draft', className: 'desk-quiet-button', onclick: () => this.draft() }, candidates.length ? 'Draft more' : 'Draft other replies', el('kbd', { textContent: 'D', 'aria-hidden': 'true' })),
      candidates.length ? el('span', { className: 'desk-quiet', textContent: 'Use one, or rank them, the best first.' }) : null);
    const cards = candidates.map((one, index) => {
      const place = this.ranking.indexOf(one.text);
      return el('div', { className: 'desk-draft' }, el('div', { className: 'ts-who' }, `Draft ${index + 1} `, el('span', { className: 'ts-badge', textContent: one.by })),
        el('div', { className: 'ts-said', dir: 'auto', textContent: one.text }),
        el('div', { className: 'desk-row' }, el('button', { type: 'button', className: 'desk-small', textContent: 'Use it', 'aria-label': `Use draft ${index + 1}`, onclick: () => this.use(one.text) }), this.rankButton(one.text, `draft ${index + 1}`, place)));
    });
    const focused = document.activeElement?.id;
    const original = candidates.length ? el('div', { className: 'desk-row' }, el('span', { className: 'desk-quiet', textContent: 'The reply as it was:' }), this.rankButton(this.reply().text, 'the reply as it was', this.ranking.indexOf(this.reply().text))) : null;
    this.drafts.replaceChildren(ask, ...cards, ...(original ? [original] : []));
    if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus();
  }

  rankButton(text, name, place) {
    const press = () => {
      this.ranking = place >= 0 ? this.ranking.filter((one) => one !== text) : [...this.ranking, text];
      this.changed();
      this.drawDrafts();
    };
    return el('button', { type: 'button', id: `desk-rank-${name.replaceAll(' ', '-')}`, className: 'desk-small', textContent: place >= 0 ? `Ranked ${place + 1}` : 'Rank', 'aria-pressed': String(place >= 0), 'aria-label': place >= 0 ? `${name} is ranked ${place + 1}; press to take it out` : `Rank ${name} next`, onclick: press });
  }

  use(text) {
    this.editor.value = text;
    this.writing = true;
    this.compare();
    this.grow();
    this.changed();
    this.editor.focus();
  }

  async draft() {
    const item = this.item;
    this.say('Drafting…');
    await this.attempt(async () => {
      for await (const made of lines('draft', { reply_id: item.reply_id, models: this.setting.models.slice(0, 3).map((one) => one.name), with_rules: true })) {
        if (made.found) throw new Problem(made);
        item.candidates.push(made);
        if (this.item === item) this.drawDrafts();
      }
      this.say('Drafts are ready');
    });
  }

  // ---- Marks

  offerMark(span = this.item && document.getElementById('desk-reply') && selected(document.getElementById('desk-reply'))) {
    if (!span) { if (!this.marking) this.marker.hidden = true; return; }
    const quote = this.reply().text.slice(span.start, span.end);
    const names = { voice: 'Off brand', policy: 'Breaks policy', bias: 'Biased' };
    this.marker.replaceChildren(el('span', {}, 'Mark ', el('q', { textContent: quote.length > 60 ? `${quote.slice(0, 60)}…` : quote, dir: 'auto' }), ' as'),
      ...QUESTIONS.map((question) => el('button', { type: 'button', className: 'desk-small', textContent: names[question], onclick: () => { this.endMarking(); this.form.mark(question, span); window.getSelection().removeAllRanges(); this.marker.hidden = true; document.getElementById('desk-reply').focus(); } })));
    this.marker.hidden = false;
  }

  // By keyboard: arrows move a word, Shift and arrows stretch, Enter marks, Escape leaves.
  startMarking() {
    const all = words(this.reply().text);
    if (!all.length) return;
    this.marking = { all, from: 0, to: 0 };
    document.getElementById('desk-reply').focus();
    this.drawMarking();
  }

  drawMarking() {
    const { all, from, to } = this.marking;
    const span = { start: all[Math.min(from, to)].start, end: all[Math.max(from, to)].end };
    this.drawReply(span);
    document.querySelector('#desk-reply .desk-on-cursor')?.scrollIntoView({ block: 'nearest' });
    this.say(`Marking: ${this.reply().text.slice(span.start, span.end)}`);
    return span;
  }

  endMarking() { this.marking = null; this.drawReply(); }

  markingKey(event) {
    const { all } = this.marking;
    const step = { ArrowRight: 1, ArrowDown: 8, ArrowLeft: -1, ArrowUp: -8 }[event.key];
    if (step) {
      this.marking.to = Math.max(0, Math.min(all.length - 1, this.marking.to + step));
      if (!event.shiftKey) this.marking.from = this.marking.to;
      this.drawMarking();
    } else if (event.key === 'Enter') {
      const span = this.drawMarking();
      const open = shows(this.form.answers[this.form.current].value) ? this.form.current : null;
      this.endMarking();
      if (open) this.form.mark(open, span);
      else { this.offerMark(span); this.marker.querySelector('button').focus(); }
    } else if (event.key === 'Escape') this.endMarking();
    else return;
    event.preventDefault();
  }

  // ---- Keeping what was entered

  entered() {
    return { answers: this.form.answers, corrected: this.editor.value, reasons: [...this.tags], ranking: this.ranking, opened: this.opened };
  }

  changed() {
    if (this.incomplete) { this.incomplete = false; this.notice.replaceChildren(); } // it said what was missing
    if (this.item) store.setItem(`desk-${this.item.reply_id}`, JSON.stringify(this.entered()));
  }

  filled(item, entered, extra = false) {
    const text = item.turns[item.turns.length - 1].text;
    const verdicts = QUESTIONS.filter((question) => entered.answers[question].value).map((question) => {
      const answer = asSaid(entered.answers[question]);
      return { question, ...answer, note: answer.note.trim(), spans: answer.spans.map((span) => toServer(text, span)) };
    });
    return { act_id: extra && item.spent ? `${item.act_id}-extra` : item.act_id, reply_id: item.reply_id, verdicts, corrected: entered.corrected, reasons: entered.reasons, ranking: entered.ranking.length > 1 ? entered.ranking : [], seconds: Math.round((Date.now() - entered.opened) / 100) / 10, charter_version: this.setting.charter.version, extra };
  }

  // What has to be entered before it can be saved; null if nothing.
  missing(item, entered) {
    const text = this.reply().text.trim();
    const corrected = entered.corrected.trim();
    const answered = QUESTIONS.some((question) => entered.answers[question].value);
    const left = item.asked.filter((one) => !entered.answers[one.question].value).map((one) => one.name).join(' and ');
    if (left) {
      return new Problem({ found: `This reply came back for ${left}, which you have not answered yet.`, do: '“Not sure” and “does not apply” are answers too. Or skip the reply.' });
    }
    if (!answered && corrected === text && item.text_now.trim() === text && entered.ranking.length < 2) {
      return new Problem({ found: 'Nothing is marked and the reply is unchanged.', do: 'Answer a question, edit the reply, or skip it.' });
    }
    if (!corrected && text) {
      return new Problem({ found: 'Nothing is left of the reply.', do: 'Write it as it should have been, or leave it as it was.' });
    }
    return null;
  }

  async save(extra = false) {
    if (!this.item?.act_id) { if (this.item && this.setting.may_judge) await this.attempt(() => this.advance()); return; }
    const item = this.item;
    const entered = this.entered();
    const missing = this.missing(item, entered);
    if (missing) { this.complain(missing); this.incomplete = true; return; }
    const form = this.filled(item, entered, extra === true);
    this.say('Saving…');
    this.leaving.add(item.reply_id);
    const sent = post('save', form);
    const moved = this.advance().catch((problem) => this.complain(problem));
    try {
      await sent;
      store.removeItem(`desk-${item.reply_id}`);
      this.say('Saved');
    } catch (problem) {
      await moved;
      await this.notSaved(item, form, problem);
    } finally {
      this.leaving.delete(item.reply_id);
    }
    this.count();
  }

  // Bring the reply back with everything that was entered, and say what can be done.
  async notSaved(item, form, problem) {
    if (problem.kind === 'Offline') { // sent as soon as the studio is back
      const kept = JSON.parse(store.getItem('desk-unsent') || '[]');
      store.setItem('desk-unsent', JSON.stringify([...kept, form]));
      this.complain(problem);
      return;
    }
    if (this.item && this.item !== item) this.ahead.unshift(this.item);
    const trouble = await this.ready(item, problem).then(() => problem, (found) => found);
    this.show(item);
    const lost = trouble.kind === 'HoldLost' || item.spent;
    const letGo = () => this.attempt(async () => { store.removeItem(`desk-${item.reply_id}`); await this.advance(); });
    this.complain(trouble, ...(lost ? this.offers(() => this.editor.value, () => this.save(true), letGo) : []));
  }

  // So that the next press of save can be kept: under a new hold, or the new rules. Raises a Problem where it can't.
  async ready(item, problem) {
    if (problem.kind === 'SavedElsewhere') {
      item.spent = true; // what was kept under its hold stays
      item.act_id = (await get(`item/${item.reply_id}`)).item.act_id;
      item.spent = false;
    }
    if (problem.kind === 'RulesChanged') this.setting = await get('start');
  }

  // What can become of a text whose reply somebody else has by now.
  offers(text, keep, letGo) {
    const button = (words, press, id) => el('button', { type: 'button', className: 'desk-small', id, textContent: words, onclick: press });
    return [button('Keep as an extra opinion', keep, 'desk-extra'), button('Copy the text', () => navigator.clipboard.writeText(text())), button('Let it go', letGo)];
  }

  async sendKept() {
    const [form] = JSON.parse(store.getItem('desk-unsent') || '[]');
    if (!form || this.sending) return;
    this.sending = true;
    try {
      await post('save', form);
      this.sent(form);
      if (this.item?.act_id === form.act_id) await this.advance(); // the page was loaded again meanwhile
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.kind === 'HoldLost') { this.offerKept(form, problem); return; } // asked once: `sending` stays
      if (!['Offline', 'SignedOut'].includes(problem.kind)) {
        this.drop(form);
        this.complain(problem, el('a', { href: `/review?reply=${form.reply_id}`, textContent: 'Open it again' }));
      }
    }
    this.sending = false;
  }

  offerKept(form, problem) {
    const settled = (work, words) => () => this.attempt(async () => { await work(); this.sent(form, words); this.sending = false; });
    this.complain(problem, ...this.offers(() => form.corrected, settled(() => post('save', { ...form, extra: true })), settled(() => {}, '')));
  }

  drop(form) { store.setItem('desk-unsent', JSON.stringify(JSON.parse(store.getItem('desk-unsent')).filter((one) => one.act_id !== form.act_id))); }

  sent(form, words = 'Saved') {
    this.drop(form);
    store.removeItem(`desk-${form.reply_id}`);
    this.notice.replaceChildren();
    this.say(words);
  }

  // ---- Everything else one can do

  async attempt(work) {
    try { await work(); } catch (problem) { this.complain(problem); }
  }

  complain(problem, ...more) {
    this.incomplete = false;
    if (!(problem instanceof Problem)) throw problem;
    this.say('');
    this.notice.replaceChildren(el('div', { className: 'ts-notice ts-bad', role: 'alert' }, el('b', { textContent: problem.found }), ` ${[problem.wanted, problem.next].filter(Boolean).join(' ')} `, ...more));
    this.notice.scrollIntoView({ block: 'nearest' });
  }

  say(text) { this.saved.textContent = text; }

  put(item) {
    if (!item) { this.say('There is nothing before this.'); return; }
    if (this.item?.act_id) this.ahead.unshift(this.item);
    this.ahead = this.ahead.filter((one) => one.reply_id !== item.reply_id);
    this.show(item);
  }

  // Another reply, to judge if there is a place left on it, to read if not.
  openOther(id) {
    return this.attempt(async () => {
      const why = await this.bring(id);
      if (why) this.complain(why);
    });
  }

  // Puts it on screen; why it is only to be read, if it is.
  async bring(id) {
    try {
      this.put((await get(`item/${id}`)).item);
      return null;
    } catch (problem) {
      if (!['Conflict', 'Forbidden'].includes(problem.kind)) throw problem;
      this.put((await get(`look/${id}`)).item);
      return problem;
    }
  }

  back() { return this.attempt(async () => this.put((await get('back')).item)); }
  undo() { return this.attempt(async () => { const { item } = await post('undo'); this.put(item); if (item) this.say('Taken back'); }); }

  // One flagged reply after the other; the one on screen comes round last.
  async openFlagged() {
    await this.attempt(async () => {
      const all = await get('flagged');
      const next = all[all.indexOf(this.item?.reply_id) + 1] ?? all[0];
      if (!next) return;
      const why = await this.bring(next);
      const takeDown = async () => { await post('unflag', { reply_id: next }); this.notice.replaceChildren(); this.say('The flag is down'); this.count(); };
      this.complain(new Problem({ found: 'Somebody flagged this for you.', do: why ? `${why.found} You can read it here and comment on it.` : '' }),
        el('button', { type: 'button', className: 'desk-small', id: 'desk-unflag', textContent: 'Take the flag down', onclick: () => this.attempt(takeDown) }));
    });
  }

  async bringBackSkipped() {
    const { brought_back: back } = await post('bring-back');
    if (back) await this.advance();
    else this.say('A curator set these aside');
  }

  askSkip() {
    if (!this.item?.act_id) return;
    const item = this.item;
    const choose = async (body) => {
      open.close();
      this.leaving.add(item.reply_id);
      const sent = post('skip', { act_id: item.act_id, reply_id: item.reply_id, ...body });
      const moved = this.advance().catch((problem) => this.complain(problem));
      try {
        await sent;
        store.removeItem(`desk-${item.reply_id}`);
        this.say('Skipped');
      } catch (problem) {
        await moved;
        this.put(item);
        this.complain(problem);
      } finally {
        this.leaving.delete(item.reply_id);
      }
      this.count();
    };
    const choices = [...Object.entries(this.setting.skip_reasons).map(([reason, text]) => [text, { reason }]), ['Leave it to a colleague', { to_colleague: true }]];
    const buttons = choices.map(([text, body], index) => el('button', { type: 'button', className: 'desk-option', onclick: () => choose(body) }, text, el('kbd', { textContent: String(index + 1), 'aria-hidden': 'true' })));
    const open = dialog('Skip: why?', el('div', { className: 'desk-options', onkeydown: (event) => buttons[Number(event.key) - 1]?.click() }, buttons));
    buttons[0].focus();
  }

  askText(title, label, go, extra = null) {
    const text = el('textarea', { rows: 3, id: 'desk-dialog-text', maxLength: 5000 });
    const send = async () => { open.close(); await this.attempt(() => go(text.value)); };
    const open = dialog(title, extra, el('label', { className: 'desk-label', htmlFor: 'desk-dialog-text', textContent: label }), text,
      el('div', { className: 'desk-row' }, el('button', { type: 'button', className: 'desk-primary', textContent: 'Keep', onclick: send }), el('button', { type: 'button', textContent: 'Cancel', onclick: () => open.close() })));
    open.addEventListener('keydown', (event) => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); } });
    text.focus();
  }

  askComment() {
    if (!this.item) return;
    const item = this.item;
    this.askText('Comment', 'Everybody who looks at this reply sees it.', async (text) => { item.said.push(await post('comment', { reply_id: item.reply_id, text })); if (this.item === item) this.drawConversation(); this.say('Comment kept'); });
  }

  askFlag() {
    if (!this.item) return;
    const item = this.item;
    const whom = el('select', { id: 'desk-whom', 'aria-label': 'For whom' }, el('option', { value: '', textContent: 'Any curator' }), this.setting.people.filter((name) => name !== this.setting.who).map((name) => el('option', { value: name, textContent: name })));
    this.askText('Flag it for a colleague', 'What should they look at? (optional)', async (text) => { await post('flag', { reply_id: item.reply_id, to: whom.value || null, text }); this.say('Flagged'); this.count(); }, whom);
  }

  async showHistory() {
    if (!this.item) return;
    await this.attempt(async () => {
      const { reply_id: id } = this.item;
      const [said, stands] = await Promise.all([get(`history/${id}`), this.setting.may_curate ? get(`stands/${id}`) : []]);
      const rows = said.map((one) => el('li', {}, el('b', { textContent: one.who }), ` ${one.text} `, one.changes.length ? difference(one.changes) : null, el('time', { className: 'desk-quiet', dateTime: one.when, textContent: new Date(one.when).toLocaleString() })));
      const open = dialog('What happened to this reply', rows.length ? el('ol', { className: 'desk-history' }, rows) : el('p', { textContent: 'Nobody has done anything about it that you can see. What others answered stays hidden until it is settled.' }),
        stands.length ? el('dl', { className: 'desk-stands', 'aria-label': 'What it came to' }, stands.flatMap((one) => [el('dt', { textContent: one.question }), el('dd', { textContent: `${one.value}, ${one.how}` })])) : null, el('button', { type: 'button', autofocus: true, textContent: 'Close', onclick: () => open.close() }));
    });
  }

  help() {
    const rows = HELP.flatMap(([keys, what]) => [el('dt', {}, keys.split(' ').map((key) => el('kbd', { textContent: key }))), el('dd', { textContent: what })]);
    const open = dialog('Keys', el('dl', { className: 'desk-keys' }, rows), el('button', { type: 'button', autofocus: true, textContent: 'Close', onclick: () => open.close() }));
    open.id = 'desk-help';
  }

  leaveAsItWas() {
    this.editor.value = this.reply().text;
    this.leaveEditor();
    this.changed();
  }

  leaveEditor() {
    this.writing = false;
    this.compare();
    document.getElementById('desk-reply').focus();
  }

  edit() {
    this.writing = true;
    this.fold();
    this.grow();
    this.editor.focus();
    this.editor.setSelectionRange(this.editor.value.length, this.editor.value.length);
  }

  onKey(event) {
    if (!document.body.contains(this.box) || document.querySelector('dialog[open]')) return;
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.save(); return; }
    if (this.marking) { this.markingKey(event); return; }
    if (event.key === 'Escape' && event.target === this.editor) { this.leaveEditor(); return; }
    if (event.key === 'Escape' && typing(event.target)) { document.getElementById('desk-reply')?.focus(); return; }
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.('.desk-rules') && /^([1-9]|Arrow|Enter|Escape)/.test(event.key)) return; // the list's own keys
    const press = keysOf(this)[event.key.toLowerCase()];
    if (press) { event.preventDefault(); press(); }
  }
}

export const start = (element) => new Desk(element.querySelector('#ts-desk')).start();
