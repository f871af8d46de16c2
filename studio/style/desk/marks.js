// Marks in a reply: pieces of its text, by mouse or word by word with the keyboard. Kept in UTF-16 units while on screen;
// the server counts code points.

const points = (text, units) => Array.from(text.slice(0, units)).length;
const units = (text, wanted) => Array.from(text).slice(0, wanted).join('').length;

export const toServer = (text, { start, end }) => ({ start: points(text, start), end: points(text, end) });
export const fromServer = (text, { start, end }) => ({ start: units(text, start), end: units(text, end) });

// The text cut where any mark begins or ends; each piece knows the classes of the marks over it.
export function pieces(text, marks) {
  const cuts = new Set([0, text.length]);
  for (const mark of marks) { cuts.add(mark.start); cuts.add(mark.end); }
  const places = [...cuts].sort((a, b) => a - b);
  return places.slice(1).map((end, index) => {
    const start = places[index];
    const over = marks.filter((mark) => mark.start < end && mark.end > start);
    return { text: text.slice(start, end), over };
  }).filter((piece) => piece.text);
}

// What the mouse has selected inside `box`, or null.
export function selected(box) {
  const selection = window.getSelection();
  if (!selection.rangeCount || selection.isCollapsed) return null;
  const range = selection.getRangeAt(0);
  if (!box.contains(range.startContainer) || !box.contains(range.endContainer)) return null;
  const before = range.cloneRange();
  before.selectNodeContents(box);
  before.setEnd(range.startContainer, range.startOffset);
  const start = before.toString().length;
  const end = start + range.toString().length;
  return end > start ? { start, end } : null;
}

export function words(text) {
  const found = [];
  const segmenter = new Intl.Segmenter(undefined, { granularity: 'word' });
  for (const { segment, index, isWordLike } of segmenter.segment(text)) {
    if (isWordLike || /\S/.test(segment)) found.push({ start: index, end: index + segment.length });
  }
  return found;
}
