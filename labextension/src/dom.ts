/** Elements made of tags, attributes and text; nothing here takes HTML. */

export type Child = Node | string | null;

/** Makes an element; attributes that are null are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: { readonly [name: string]: string | number | null } = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) {
      made.setAttribute(name, String(value));
    }
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

/** Makes an element of a picture. */
export function svg(
  tag: keyof SVGElementTagNameMap,
  attributes: { readonly [name: string]: string | number },
  ...children: readonly Child[]
): SVGElement {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, String(value));
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

/** A button that does something when it is pressed. */
export function button(
  label: string,
  press: () => void,
  attributes: { readonly [name: string]: string | number | null } = {}
): HTMLButtonElement {
  const made = h('button', { type: 'button', ...attributes }, label);
  made.addEventListener('click', press);
  return made;
}

/** A part that is folded, and whose content is made when it is first unfolded. */
export function folded(
  summary: Child,
  make: () => readonly Child[],
  open = false
): HTMLDetailsElement {
  const made = h('details', { class: 'nanhunt-fold' }, h('summary', {}, summary));
  let empty = true;
  const fill = () => {
    if (empty) {
      empty = false;
      made.append(...make().filter(child => child !== null));
    }
  };
  made.addEventListener('toggle', () => {
    if (made.open) {
      fill();
    }
  });
  if (open) {
    fill();
    made.open = true;
  }
  return made;
}
