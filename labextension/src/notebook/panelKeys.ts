/**
 * Keys pressed in a list of the panel are the list's.
 *
 * In command mode JupyterLab takes arrows and letters for the notebook while a list has the
 * focus (jupyter-widgets/ipywidgets#3912). Lumino leaves keys of elements with this attribute.
 */
import { DisposableDelegate, type IDisposable } from '@lumino/disposable';

const SUPPRESS = 'data-lm-suppress-shortcuts';

/** Watches for focus in lists of panels until it is disposed. */
export function keepPanelKeys(page: Document): IDisposable {
  const mark = (event: FocusEvent): void => {
    const target = event.target;
    if (target instanceof HTMLSelectElement && target.closest('.nanhunt-panel')) {
      target.setAttribute(SUPPRESS, 'true');
    }
  };
  page.addEventListener('focusin', mark);
  return new DisposableDelegate(() => page.removeEventListener('focusin', mark));
}
