// The three questions: answers, rules at fault, severity, kind, marks and a note. Holds the answers; draws itself.

import { el } from './dom.js';

export const QUESTIONS = ['voice', 'policy', 'bias'];
const ASKED = {
  voice: { name: 'Brand voice', rules: 'voice', fault: 'What is off?', answers: [['On brand', 'pass'], ['Off brand', 'fail'], ['Not sure', 'unsure'], ['Does not apply', 'not_applicable']] },
  policy: { name: 'Policy', rules: 'policy', fault: 'Which rule?', answers: [['Within policy', 'pass'], ['Breaks policy', 'fail'], ['Not sure', 'unsure'], ['Does not apply', 'not_applicable']] },
  bias: { name: 'Bias', rules: 'bias', fault: 'About what?', answers: [['Fair', 'pass'], ['Biased', 'fail'], ['Not sure', 'unsure'], ['Does not apply', 'not_applicable']] },
};
const SEVERITIES = [['minor', 'Minor'], ['major', 'Major'], ['critical', 'Critical']];
const KINDS = [['stereotype', 'Stereotype'], ['assumption', 'Assumes something'], ['unequal_help', 'Helps less'], ['disrespect', 'Talks down'], ['exclusion', 'Leaves somebody out']];
const HEAVIER = { minor: 0, major: 1, critical: 2 };

// Where a fault is, or may be, can be shown in the reply.
export const shows = (value) => value === 'fail' || value === 'unsure';

// What an answer says as it stands. Rules and marks stay on the form when somebody tries another answer, and come back with the first.
export const asSaid = (answer) => ({
  ...answer,
  ...(answer.value === 'fail' ? {} : { clause_ids: [], severity: null, kind: null }),
  ...(shows(answer.value) ? {} : { spans: [] }),
});

export const empty = () => Object.fromEntries(QUESTIONS.map((name) => [name, { value: null, clause_ids: [], severity: null, kind: null, spans: [], note: '' }]));

export class Form {
  // `changed()` is called after each change a person makes; `text()` gives the reply as it was.
  constructor(box, { changed, text }) {
    Object.assign(this, { box, changed, text, answers: empty(), current: 'voice', charter: null, suggestions: [] });
  }

  show(charter, answers, suggestions) {
    Object.assign(this, { charter, answers, suggestions, current: 'voice', noting: null });
    // Rules that a newer charter no longer has can't be cited, nor seen.
    for (const question of QUESTIONS) answers[question].clause_ids = answers[question].clause_ids.filter((id) => charter[ASKED[question].rules].some((rule) => rule.id === id));
    this.draw();
  }

  set(question, value) {
    this.answers[question].value = value;
    this.current = question;
    this.redraw(question);
    this.changed();
  }

  allFine() { QUESTIONS.forEach((question) => this.set(question, 'pass')); }

  notApplicable() {
    const open = QUESTIONS.find((question) => !this.answers[question].value);
    if (open) this.set(open, 'not_applicable');
  }

  toggleRule(question, id) {
    const answer = this.answers[question];
    answer.clause_ids = answer.clause_ids.includes(id) ? answer.clause_ids.filter((one) => one !== id) : [...answer.clause_ids, id];
    this.current = question;
    if (question === 'policy') answer.severity = this.heaviest(answer.clause_ids);
    this.redraw(question);
    this.changed();
  }

  heaviest(ids) {
    const found = this.charter.policy.filter((clause) => ids.includes(clause.id)).map((clause) => clause.severity);
    return found.sort((a, b) => HEAVIER[b] - HEAVIER[a])[0] ?? null;
  }

  mark(question, span) {
    if (!shows(this.answers[question].value)) this.set(question, 'fail');
    const answer = this.answers[question];
    answer.spans = [...answer.spans.filter((one) => one.end <= span.start || one.start >= span.end), span];
    this.current = question;
    this.redraw(question);
    this.changed();
  }

  take(suggestion) {
    const { question, clause_ids: ids, spans } = suggestion;
    if (this.answers[question].value !== suggestion.value) this.set(question, suggestion.value);
    for (const id of ids) if (!this.answers[question].clause_ids.includes(id)) this.toggleRule(question, id);
    for (const span of spans) this.mark(question, span);
  }

  marks() {
    return QUESTIONS.flatMap((question) => asSaid(this.answers[question]).spans.map((span) => ({ ...span, question })));
  }

  // The first suggestion that the answers do not hold yet.
  takeNext() {
    const taken = ({ question, value, clause_ids: ids }) => this.answers[question].value === value && ids.every((id) => this.answers[question].clause_ids.includes(id));
    const next = this.suggestions.find((one) => !taken(one));
    if (next) this.take(next);
  }

  // A note on the answer given last.
  focusNote(question = this.current) {
    if (!this.answers[question].value) return;
    this.noting = question;
    this.redraw(question);
    document.getElementById(`desk-${question}-note`).focus();
  }

  focusRules() {
    const failed = this.answers[this.current].value === 'fail' ? this.current : QUESTIONS.find((name) => this.answers[name].value === 'fail');
    (failed && this.box.querySelector(`#desk-${failed}-rules input`))?.focus();
    return Boolean(failed);
  }

  draw() {
    this.box.replaceChildren(...QUESTIONS.map((question) => this.group(question)));
  }

  // Draw one question anew and keep the focus where it was.
  redraw(question) {
    const focused = document.activeElement?.id;
    const before = this.box.querySelector(`#desk-${question}`);
    const inside = before.contains(document.activeElement);
    before.replaceWith(this.group(question));
    if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus();
    else if (inside) this.box.querySelector(`#desk-${question} input:checked`)?.focus(); // what was pressed is gone
  }

  group(question) {
    const { name, answers } = ASKED[question];
    const answer = this.answers[question];
    const first = QUESTIONS.indexOf(question) * 3 + 1;
    const choices = answers.map(([label, value], index) => el('label', { className: `desk-choice${answer.value === value ? ' chosen' : ''}` },
      el('input', { type: 'radio', name: `desk-${question}`, id: `desk-${question}-${value}`, value, checked: answer.value === value, onchange: () => this.set(question, value) }),
      el('span', { textContent: label }),
      el('kbd', { textContent: index < 3 ? String(first + index) : 'X', 'aria-hidden': 'true' })));
    return el('fieldset', { id: `desk-${question}`, className: 'desk-question' },
      el('legend', { textContent: name }), el('div', { className: 'desk-choices' }, choices),
      this.hints(question), answer.value === 'fail' ? this.faults(question) : null, answer.value === 'unsure' ? this.spans(question) : null,
      answer.value ? this.note(question) : null);
  }

  hints(question) {
    const found = this.suggestions.filter((one) => one.question === question);
    if (!found.length) return null;
    return el('ul', { className: 'desk-hints', 'aria-label': 'Suggestions, not answers' }, found.map((one) => el('li', {},
      el('span', { textContent: `${one.author.replace(/^check:.*/, 'A check')} suggests: ${one.why || one.clause_ids.join(', ')}${one.score === null ? '' : ` (${Math.round(100 * one.score)}% sure)`}` }),
      el('button', { type: 'button', className: 'desk-small', textContent: 'Take it', 'aria-label': `Take the suggestion: ${one.why}`, onclick: () => this.take(one) }))));
  }

  faults(question) {
    const { fault, rules } = ASKED[question];
    const answer = this.answers[question];
    const boxes = this.charter[rules].map((rule, index) => el('label', { className: 'desk-rule', title: rule.id },
      el('input', { type: 'checkbox', id: `desk-${question}-rule-${rule.id}`, checked: answer.clause_ids.includes(rule.id), onchange: () => this.toggleRule(question, rule.id) }),
      el('span', { textContent: rule.text }), index < 9 ? el('kbd', { textContent: String(index + 1), 'aria-hidden': 'true' }) : null));
    return el('div', { className: 'desk-faults' },
      el('div', { id: `desk-${question}-rules`, className: 'desk-rules', role: 'group', 'aria-label': fault, onkeydown: (event) => this.inRules(event, question) },
        el('div', { className: 'desk-ask', textContent: fault }), boxes),
      question === 'policy' ? this.pick('How bad?', 'severity', SEVERITIES, question) : null,
      question === 'bias' ? this.pick('What kind?', 'kind', KINDS, question) : null,
      this.spans(question));
  }

  // Inside the list of rules: arrows move, digits tick.
  inRules(event, question) {
    const boxes = [...this.box.querySelectorAll(`#desk-${question}-rules input`)];
    const here = boxes.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && here >= 0) boxes[(here + step + boxes.length) % boxes.length].focus();
    else if (/^[1-9]$/.test(event.key) && boxes[event.key - 1]) this.toggleRule(question, this.charter[ASKED[question].rules][event.key - 1].id);
    else if (event.key === 'Escape' || event.key === 'Enter') document.getElementById('desk-reply').focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  pick(label, field, options, question) {
    const answer = this.answers[question];
    const change = (event) => { answer[field] = event.target.value || null; this.changed(); };
    return el('label', { className: 'desk-pick' }, el('span', { textContent: label }),
      el('select', { id: `desk-${question}-${field}`, onchange: change }, el('option', { value: '', textContent: 'Not said' }),
        options.map(([value, text]) => el('option', { value, textContent: text, selected: answer[field] === value }))));
  }

  spans(question) {
    const answer = this.answers[question];
    if (!answer.spans.length) return el('p', { className: 'desk-quiet', textContent: 'Select words in the reply, or press M, to show where.' });
    const drop = (span) => { answer.spans = answer.spans.filter((one) => one !== span); this.redraw(question); this.changed(); };
    return el('ul', { className: 'desk-spans', 'aria-label': 'Marked places' }, answer.spans.map((span) => el('li', {},
      el('q', { textContent: this.text().slice(span.start, span.end).slice(0, 80), dir: 'auto' }),
      el('button', { type: 'button', className: 'desk-small', textContent: 'Remove', 'aria-label': 'Remove this mark', onclick: () => drop(span) }))));
  }

  note(question) {
    const answer = this.answers[question];
    if (answer.value === 'pass' && !answer.note && this.noting !== question) return el('button', { type: 'button', className: 'desk-link desk-add-note', textContent: 'Add a note', 'aria-label': `Add a note on ${ASKED[question].name.toLowerCase()}`, onclick: () => this.focusNote(question) });
    return el('input', { id: `desk-${question}-note`, className: 'desk-note', value: answer.note, placeholder: 'Note (optional)', 'aria-label': `Note on ${ASKED[question].name.toLowerCase()}`, maxLength: 5000, oninput: (event) => { answer.note = event.target.value; this.changed(); } });
  }
}
