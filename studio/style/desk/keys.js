// Which key does what. The list people see and the keys that work are in one place.

export const HELP = [
  ['1 2 3', 'Brand voice: on, off, not sure'],
  ['4 5 6', 'Policy: within, breaks, not sure'],
  ['7 8 9', 'Bias: fair, biased, not sure'],
  ['X', 'The next open question does not apply'],
  ['A', 'All fine: on brand, within policy, fair'],
  ['F', 'To the rules at fault; arrows move, Space or a digit ticks, Esc leaves'],
  ['M', 'Mark words of the reply; arrows move, Shift stretches, Enter marks'],
  ['N', 'A note on the answer given last'],
  ['T', 'Take the next suggestion'],
  ['E', 'Put the reply right; Esc leaves the box'],
  ['D', 'Let the models draft other replies'],
  ['Ctrl Enter', 'Save and go on (⌘ Enter on a Mac)'],
  ['S', 'Skip, with a reason'],
  ['U', 'Undo: take your last answer back'],
  ['B', 'Back to the one before'],
  ['G', 'Flag it for a colleague'],
  ['C', 'Comment'],
  ['H', 'What happened to this reply'],
  ['/', 'Find replies'],
  ['Tab', 'To everything else, such as severity, reasons and ranks; Space or Enter presses it'],
  ['?', 'This list'],
];

const VALUES = ['pass', 'fail', 'unsure'];

export function keysOf(desk) {
  const keys = {
    x: () => desk.form.notApplicable(),
    a: () => desk.form.allFine(),
    f: () => desk.form.focusRules(),
    m: () => desk.startMarking(),
    n: () => desk.form.focusNote(),
    t: () => desk.form.takeNext(),
    e: () => desk.edit(),
    d: () => desk.draft(),
    s: () => desk.askSkip(),
    u: () => desk.undo(),
    b: () => desk.back(),
    g: () => desk.askFlag(),
    c: () => desk.askComment(),
    h: () => desk.showHistory(),
    '/': () => { location.href = '/find'; },
    '?': () => desk.help(),
  };
  ['voice', 'policy', 'bias'].forEach((question, group) => VALUES.forEach((value, index) => {
    keys[String(3 * group + index + 1)] = () => desk.form.set(question, value);
  }));
  if (desk.item && !desk.item.act_id) return { b: keys.b, g: keys.g, c: keys.c, h: keys.h, '/': keys['/'], '?': keys['?'] };
  if (!desk.item) return { u: keys.u, b: keys.b, '/': keys['/'], '?': keys['?'] };
  return keys;
}
