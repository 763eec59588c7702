/** How many findings the current notebook has, in the status bar. */
import { Widget } from '@lumino/widgets';
import { button } from '../dom';
import type { Wording } from '../report/wording';
import type { Current } from './current';

export class StatusItem extends Widget {
  constructor(
    private readonly _current: Current,
    private readonly _words: Wording,
    open: () => void
  ) {
    super();
    this.addClass('nanhunt-Status');
    this._button = button('', open, { title: _words.trans.__('Show the findings of nanhunt') });
    this.node.append(this._button);
    _current.changed.connect(this._tell, this);
    this._tell();
  }

  /** Whether there is anything to tell. */
  get active(): boolean {
    return (this._current.watch?.entries.length ?? 0) > 0;
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this._current.changed.disconnect(this._tell, this);
      super.dispose();
    }
  }

  private _tell(): void {
    const entries = this._current.watch?.entries ?? [];
    const findings = entries.reduce(
      (sum, { shown }) => sum + (shown.kind === 'report' ? shown.report.findings.length : 0),
      0
    );
    const trans = this._words.trans;
    this._button.textContent = findings
      ? `✗ ${trans._n('%1 finding', '%1 findings', findings, findings)}`
      : `✓ ${trans.__('no finding')}`;
  }

  private readonly _button: HTMLButtonElement;
}
