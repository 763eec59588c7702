/** jsdom has no DragEvent, which Lumino's widgets extend when they are loaded. */
globalThis.DragEvent = class extends MouseEvent {} as typeof DragEvent;
/** Nor media queries, which JupyterLab's dialogs and the editor ask when they are loaded. */
globalThis.matchMedia = () =>
  Object.assign(new EventTarget(), {
    matches: false,
    addListener: () => undefined,
    removeListener: () => undefined
  }) as unknown as MediaQueryList;
