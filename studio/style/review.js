// Keys of the review desk. They press the same buttons a mouse would, so there is one way for each thing to happen.
const groups = { 1: 'voice', 2: 'voice', 3: 'voice', 4: 'policy', 5: 'policy', 6: 'policy', 7: 'bias', 8: 'bias', 9: 'bias' };
const button = (id) => document.querySelector(`#${id}`);
const answer = (key) => {
  const choices = document.querySelectorAll(`#ts-${groups[key]} input[type=radio]`);
  choices[(Number(key) - 1) % 3]?.click();
};
const help = () => document.getElementById('ts-help');
const actions = {
  a: () => ['1', '4', '7'].forEach(answer),
  e: () => {
    const box = document.querySelector('#ts-corrected textarea');
    box?.focus();
    box?.setSelectionRange(box.value.length, box.value.length);
  },
  s: () => button('ts-skip-item')?.click(),
  b: () => button('ts-back')?.click(),
  '?': () => help()?.showModal(),
};
const typing = (target) => target.matches?.('textarea, input:not([type=radio]):not([type=checkbox]), [contenteditable]');
const listen = (event) => {
  if (!document.body.contains(element)) { // the page was left
    document.removeEventListener('keydown', listen, true);
    return;
  }
  if (help()?.open) return;
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    // The box tells the page what was typed when it is left; leave it first, so the last letters are saved too.
    const box = document.activeElement;
    box?.blur?.();
    setTimeout(() => button('ts-save')?.click(), 60);
    return;
  }
  if (event.key === 'Escape' && typing(event.target)) { event.target.blur(); return; }
  if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (groups[key]) { event.preventDefault(); answer(key); } else if (actions[key]) { event.preventDefault(); actions[key](); }
};
document.addEventListener('keydown', listen, true);
