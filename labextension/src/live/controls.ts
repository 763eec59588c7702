/** The state of the live hunt and its buttons, in the sidebar. */
import { Widget } from '@lumino/widgets';
import { button, h } from '../dom';
import { visible } from '../report/text';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Live } from './live';
import { CONTROLS } from './state';

export class Controls extends Widget {
  constructor(
    private readonly _live: Live,
    trans: TranslationBundle
  ) {
    super();
    this.addClass('nanhunt-Live');
    this.node.setAttribute('role', 'group');
    this.node.setAttribute('aria-label', trans.__('Live hunt'));
    for (const { name, button: label, hint } of CONTROLS) {
      // A person who presses a button again and again keeps the focus while it cannot be pressed,
      // which `disabled` would take away.
      const made = button(trans.__(label), () => this._live.give(name), {
        title: trans.__(hint),
        class: 'nanhunt-Live-button'
      });
      this._buttons.set(name, made);
    }
    const bar = h('div', { class: 'nanhunt-Live-bar' }, ...this._buttons.values());
    this.node.append(this._headline, bar, this._notice);
    _live.changed.connect(this._tell, this);
    this._tell();
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this._live.changed.disconnect(this._tell, this);
      super.dispose();
    }
  }

  private _tell(): void {
    const state = this._live.state;
    if (state === null && this.node.contains(document.activeElement)) {
      this.node.parentElement?.focus(); // or the keyboard would begin again at the top of the page
    }
    this.node.hidden = state === null;
    this._headline.className = `nanhunt-Live-headline nanhunt-mod-${state?.grade ?? 'calm'}`;
    // What changes with every step is not read out; where the training stands then is.
    this._headline.setAttribute('aria-busy', String(state?.grade === 'busy'));
    setText(this._headline, visible(state?.headline ?? '', 600));
    setText(this._notice, visible(state?.notice ?? '', 400));
    for (const [name, made] of this._buttons) {
      made.setAttribute('aria-disabled', String(!this._live.can(name)));
    }
  }

  private readonly _headline = h('p', { role: 'status' });
  private readonly _notice = h('p', { class: 'nanhunt-Live-notice', role: 'status' });
  private readonly _buttons = new Map<string, HTMLButtonElement>();
}

/** Leaves equal text alone, which would be read out once more. */
function setText(node: HTMLElement, text: string): void {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}
