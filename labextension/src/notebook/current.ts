/** The watches over all open notebooks, and which of these is the current one. */
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import type { IFinding, ISource } from '../report/format';
import type { Wording } from '../report/wording';
import type { Marks } from './marks';
import { NotebookWatch } from './watch';

/** A finding that leads somewhere. */
export type Located = IFinding & { readonly source: ISource };

export class Current implements IDisposable {
  constructor(
    private readonly _tracker: INotebookTracker,
    private readonly _marks: Marks,
    private readonly _words: Wording
  ) {
    _tracker.widgetAdded.connect(this._add, this);
    _tracker.currentChanged.connect(this._tell, this);
    _tracker.forEach(panel => this._add(_tracker, panel));
  }

  /** Another notebook is current, or its reports changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** The watch over the current notebook. */
  get watch(): NotebookWatch | null {
    const panel = this._tracker.currentWidget;
    return (panel && this._watches.get(panel)) ?? null;
  }

  /** All watches, the current one first. */
  get all(): readonly NotebookWatch[] {
    const current = this.watch;
    const others = [...this._watches.values()].filter(watch => watch !== current);
    return current ? [current, ...others] : others;
  }

  /** Findings of the current notebook that name a line, newest report first. */
  get findings(): readonly Located[] {
    const entries = this.watch?.entries ?? [];
    const all = entries.flatMap(({ shown }) =>
      shown.kind === 'report' ? shown.report.findings : []
    );
    return all.filter((finding): finding is Located => finding.source !== null);
  }

  /** The finding after (or before) the one that this gave last, around the end. */
  neighbour(step: 1 | -1): Located | null {
    const all = this.findings;
    if (all.length === 0) {
      return null;
    }
    const at = this._last ? all.indexOf(this._last) : -1;
    const next = at < 0 && step < 0 ? all.length - 1 : (at + step + all.length) % all.length;
    this._last = all[next]!;
    return this._last;
  }

  dispose(): void {
    if (!this._disposed) {
      this._disposed = true;
      this._tracker.widgetAdded.disconnect(this._add, this);
      this._tracker.currentChanged.disconnect(this._tell, this);
      for (const watch of this._watches.values()) {
        watch.dispose();
      }
      this._watches.clear();
      Signal.clearData(this);
    }
  }

  private _add(_: INotebookTracker, panel: NotebookPanel): void {
    const watch = new NotebookWatch(panel, this._marks, this._words);
    this._watches.set(panel, watch);
    watch.changed.connect(this._tell, this);
    panel.disposed.connect(() => {
      this._watches.delete(panel);
      // It may have been a second view of a notebook that is still open, whose marks it took along.
      this._watches.forEach(other => other.refresh());
      this._tell();
    });
    this._tell(); // it may be current already
  }

  private _tell(): void {
    if (!this._disposed) {
      this._changed.emit();
    }
  }

  private readonly _watches = new Map<NotebookPanel, NotebookWatch>();
  private readonly _changed = new Signal<this, void>(this);
  private _last: Located | null = null;
  private _disposed = false;
}
