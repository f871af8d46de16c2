// What was typed and ticked outlives a reload: the page reloads by itself when the studio was restarted.
// Kept in this tab only, so two tabs don't write into each other.
const boxes = { chat: '#ts-message textarea', compare: '#ts-ask textarea', note: '#ts-note textarea, #ts-note input' };
const questions = ['voice', 'policy', 'bias'];
const store = window.sessionStorage;
const box = (selector) => document.querySelector(selector);
const replyShown = () => (box('#ts-shown textarea, #ts-shown input')?.value || '').split(' ')[1] || '';
const put = (target, text) => {
  if (!target || !text || target.value === text) return;
  const kind = target.tagName === 'TEXTAREA' ? HTMLTextAreaElement : HTMLInputElement;
  Object.getOwnPropertyDescriptor(kind.prototype, 'value').set.call(target, text);
  target.dispatchEvent(new Event('input', { bubbles: true }));
};
const ticked = (name) => [...document.querySelectorAll(`#ts-${name} input[type=radio]`)].findIndex((one) => one.checked);
const keepReview = () => {
  const reply = replyShown();
  if (!reply) return;
  const draft = { text: box('#ts-corrected textarea')?.value || '', answers: questions.map(ticked) };
  store.setItem(`ts-review-${reply}`, JSON.stringify(draft));
};
const restoreReview = (reply) => {
  const draft = JSON.parse(store.getItem(`ts-review-${reply}`) || 'null');
  if (!draft) return;
  put(box('#ts-corrected textarea'), draft.text);
  questions.forEach((name, place) => {
    document.querySelectorAll(`#ts-${name} input[type=radio]`)[draft.answers[place]]?.click();
  });
};
const remember = (event) => {
  if (!event.isTrusted) return; // what the page itself puts in is no draft
  if (event.target.closest?.('#ts-corrected, #ts-voice, #ts-policy, #ts-bias')) setTimeout(keepReview, 50);
  for (const [name, selector] of Object.entries(boxes)) {
    if (event.target.matches?.(selector)) store.setItem(`ts-${name}`, event.target.value);
  }
};
// A key presses a radio by script, so listen to the keys as well.
const keyed = () => setTimeout(() => { if (replyShown()) keepReview(); }, 80);
for (const kind of ['input', 'change']) document.addEventListener(kind, remember, true);
document.addEventListener('keyup', keyed, true);
for (const [name, selector] of Object.entries(boxes)) {
  setTimeout(() => put(box(selector), store.getItem(`ts-${name}`)), 600);
}
let last = null;
const look = setInterval(() => {
  if (!document.body.contains(element)) { clearInterval(look); return; }
  const reply = replyShown();
  if (reply && reply !== last) {
    if (last) store.removeItem(`ts-review-${last}`); // saved or skipped
    else setTimeout(() => restoreReview(reply), 400);
    last = reply;
  }
  const sent = box(boxes.chat);
  if (sent && sent.value === '') store.removeItem('ts-chat');
}, 200);
