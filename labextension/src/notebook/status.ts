/** The live hunt of the current notebook, or how many findings it has, in the status bar. */
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { button } from '../dom';
import type { Live } from '../live/live';
import { visible } from '../report/text';
import { sign } from '../report/wording';
import type { Wording } from '../report/wording';
import type { Current } from './current';

/** Characters of a live hunt's state that are shown. */
const MOST = 60;

/** How grave the state of a live hunt is, as a glyph. */
const GLYPHS = { calm: '○', busy: '●', alarm: '✗' } as const;

export class StatusItem extends Widget {
  constructor(
    private readonly _current: Current,
    private readonly _live: Live,
    private readonly _words: Wording,
    open: () => void
  ) {
    super();
    this.addClass('nanhunt-Status');
    this._button = button('', open, { title: _words.trans.__('Show the findings of nanhunt') });
    this.node.append(this._button);
    _current.changed.connect(this._tell, this);
    _live.changed.connect(this._tell, this);
    this._tell();
  }

  /** There may be something to tell now, or no longer. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Whether there is anything to tell. */
  get active(): boolean {
    return this._live.state !== null || (this._current.watch?.entries.length ?? 0) > 0;
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this._current.changed.disconnect(this._tell, this);
      this._live.changed.disconnect(this._tell, this);
      Signal.clearData(this);
      super.dispose();
    }
  }

  private _tell(): void {
    const entries = this._current.watch?.entries ?? [];
    const findings = entries.flatMap(({ shown }) =>
      shown.kind === 'report' ? shown.report.findings : []
    );
    const worst = findings.find(finding => finding.severity === 'critical') ?? findings[0];
    const all = findings.length;
    const trans = this._words.trans;
    const live = this._live.state;
    if (live) {
      this._button.textContent = `${GLYPHS[live.grade]} ${visible(live.headline, MOST)}`;
    } else {
      this._button.textContent = worst
        ? `${sign(worst)} ${trans._n('%1 finding', '%1 findings', all, all)}`
        : `✓ ${trans.__('no finding')}`;
    }
    this._changed.emit();
  }

  private readonly _changed = new Signal<this, void>(this);
  private readonly _button: HTMLButtonElement;
}
