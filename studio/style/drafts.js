// What was typed outlives a reload: the page reloads by itself when the studio was restarted.
// Kept in this tab only, so two tabs don't write into each other. The review desk keeps its own.
const boxes = { chat: '#ts-message textarea', compare: '#ts-ask textarea', note: '#ts-note textarea, #ts-note input' };
const store = window.sessionStorage;
const box = (selector) => document.querySelector(selector);
const put = (target, text) => {
  if (!target || !text || target.value === text) return;
  const kind = target.tagName === 'TEXTAREA' ? HTMLTextAreaElement : HTMLInputElement;
  Object.getOwnPropertyDescriptor(kind.prototype, 'value').set.call(target, text);
  target.dispatchEvent(new Event('input', { bubbles: true }));
};
const remember = (event) => {
  if (!event.isTrusted) return; // what the page itself puts in is no draft
  for (const [name, selector] of Object.entries(boxes)) {
    if (event.target.matches?.(selector)) store.setItem(`ts-${name}`, event.target.value);
  }
};
document.addEventListener('input', remember, true);
for (const [name, selector] of Object.entries(boxes)) {
  setTimeout(() => put(box(selector), store.getItem(`ts-${name}`)), 600);
}
const look = setInterval(() => {
  if (!document.body.contains(element)) { clearInterval(look); return; }
  const sent = box(boxes.chat);
  if (sent && sent.value === '') store.removeItem('ts-chat');
}, 200);
