// Building elements. Text always goes in as text, so nothing in a reply can become markup.

export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== 'list' && name !== 'form') made[name] = value;
    else made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const typing = (target) => target?.matches?.('textarea, input:not([type=radio]):not([type=checkbox]), select');

// A dialog that closes on Escape and gives the focus back.
export function dialog(title, ...children) {
  const heading = el('h2', { textContent: title });
  const made = el('dialog', { className: 'ts-dialog', 'aria-label': title }, heading, ...children);
  made.addEventListener('close', () => made.remove());
  (document.querySelector('.gradio-container') ?? document.body).append(made); // where the page's fonts are
  made.showModal();
  return made;
}
