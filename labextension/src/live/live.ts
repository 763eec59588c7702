/** The live hunt of the current notebook's kernel. */
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { Link } from './link';
import type { ILiveState } from './state';

export class Live implements IDisposable {
  constructor(private readonly _tracker: INotebookTracker) {
    _tracker.widgetAdded.connect(this._add, this);
    _tracker.currentChanged.connect(this._tell, this);
    _tracker.forEach(panel => this._add(_tracker, panel));
  }

  /** Another notebook is current, or its hunt went on. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** Null when the kernel of the current notebook has no live hunt. */
  get state(): ILiveState | null {
    return this._link?.state ?? null;
  }

  /** Whether a command can be given now. */
  can(command: string): boolean {
    return this.state?.possible.has(command) ?? false;
  }

  /** Gives a command to the hunt of the current notebook. */
  give(command: string): void {
    this._link?.give(command);
  }

  dispose(): void {
    if (!this._disposed) {
      this._disposed = true;
      this._tracker.widgetAdded.disconnect(this._add, this);
      this._tracker.currentChanged.disconnect(this._tell, this);
      this._links.forEach(link => link.dispose());
      this._links.clear();
      Signal.clearData(this);
    }
  }

  private get _link(): Link | null {
    const panel = this._tracker.currentWidget;
    return (panel && this._links.get(panel)) ?? null;
  }

  private _add(_: INotebookTracker, panel: NotebookPanel): void {
    const link = new Link(panel.sessionContext);
    this._links.set(panel, link);
    link.changed.connect(this._tell, this);
    panel.disposed.connect(() => {
      this._links.delete(panel);
      link.dispose();
      this._tell();
    });
    this._tell(); // it may be current already
  }

  private _tell(): void {
    if (!this._disposed) {
      this._changed.emit();
    }
  }

  private readonly _links = new Map<NotebookPanel, Link>();
  private readonly _changed = new Signal<this, void>(this);
  private _disposed = false;
}
