/** The reports in a notebook's outputs, with or without a kernel. */
import type { ICellModel, ICodeCellModel } from '@jupyterlab/cells';
import type { INotebookModel, NotebookPanel } from '@jupyterlab/notebook';
import type { IOutputModel } from '@jupyterlab/rendermime';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { decodePreflight, decodeReport } from '../report/decode';
import { MIME_TYPE, PREFLIGHT_MIME_TYPE } from '../report/format';
import type { IFinding, IPreflight, IReport, ISource } from '../report/format';
import type { Wording } from '../report/wording';
import { findCell, textOf } from './locate';
import type { ICellText, IPlace } from './locate';
import type { IMark, Marks } from './marks';

/** A report or preflight and the cell whose output it is. */
export interface IEntry {
  readonly cell: ICodeCellModel;
  /** The cell's execution count; null while it runs for the first time, and where it never ran. */
  readonly count: number | null;
  readonly shown: Shown;
}

export type Shown =
  | { readonly kind: 'report'; readonly report: IReport }
  | { readonly kind: 'preflight'; readonly preflight: IPreflight };

/** Milliseconds within which changes of a notebook are taken together. */
const PAUSE = 150;

export class NotebookWatch implements IDisposable {
  constructor(
    readonly panel: NotebookPanel,
    private readonly _marks: Marks,
    private readonly _words: Wording
  ) {
    panel.content.modelChanged.connect(this._onModel, this);
    panel.disposed.connect(this.dispose, this);
    this._onModel();
  }

  /** Newest first. */
  get entries(): readonly IEntry[] {
    return this._entries;
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** The cell that a source names, as the notebook is now. */
  find(source: ISource): IPlace | null {
    return findCell(this._cells().map(cellText), source);
  }

  /** Index of a cell, or -1. */
  indexOf(cell: ICellModel): number {
    return this._cells().indexOf(cell);
  }

  /** Looks anew, soon. */
  refresh(): void {
    this._timer ??= window.setTimeout(() => {
      this._timer = undefined;
      this._look();
    }, PAUSE);
  }

  dispose(): void {
    if (this._disposed) {
      return;
    }
    this._disposed = true;
    window.clearTimeout(this._timer);
    this._unwatch();
    this._entries = [];
    this._mark([]);
    Signal.clearData(this);
  }

  private _onModel(): void {
    this._unwatch();
    this._model = this.panel.content.model;
    this._model?.contentChanged.connect(this.refresh, this);
    this.refresh();
  }

  private _unwatch(): void {
    this._model?.contentChanged.disconnect(this.refresh, this);
    this._model = null;
  }

  private _look(): void {
    const cells = this._cells();
    const entries = cells.flatMap(cell => (isCode(cell) ? entriesOf(cell) : []));
    // A stable sort: of cells with the same count the later one is the newer.
    entries.reverse().sort((a, b) => age(a) - age(b));
    const same =
      entries.length === this._entries.length &&
      entries.every((entry, n) => alike(entry, this._entries[n]!));
    this._entries = entries;
    this._mark(cells);
    if (!same) {
      this._changed.emit();
    }
  }

  /** Marks the culprit lines; of several findings in a line the first is told. */
  private _mark(cells: readonly ICellModel[]): void {
    const wanted = new Map<ICellModel, Map<number, IMark>>();
    const findings = this._findings();
    const texts = findings.length ? cells.map(cellText) : [];
    for (const finding of findings) {
      const place = finding.source && findCell(texts, finding.source);
      if (place?.unchanged) {
        const cell = cells[place.cell]!;
        const lines = wanted.get(cell) ?? new Map<number, IMark>();
        wanted.set(cell, lines);
        const line = place.line;
        if (!lines.has(line)) {
          const [short, verdict] = [this._words.short(finding), this._words.verdict(finding)];
          lines.set(line, { finding, line, short, verdict });
        }
      }
    }
    for (const cell of this._marked) {
      if (!wanted.has(cell)) {
        this._marks.set(cell, []);
      }
    }
    for (const [cell, lines] of wanted) {
      this._marks.set(cell, [...lines.values()]);
    }
    this._marked = new Set(wanted.keys());
  }

  private _findings(): IFinding[] {
    const all = this._entries.flatMap(({ shown }) =>
      shown.kind === 'report' ? shown.report.findings : []
    );
    return all.slice(0, MOST_MARKS);
  }

  private _cells(): ICellModel[] {
    const model = this.panel.isDisposed ? null : this.panel.content.model;
    return model ? [...model.cells] : [];
  }

  private _model: INotebookModel | null = null;
  private _entries: readonly IEntry[] = [];
  private _marked = new Set<ICellModel>();
  private readonly _changed = new Signal<this, void>(this);
  private _timer: number | undefined;
  private _disposed = false;
}

/** Findings of a notebook that are marked, of the newest reports first. */
const MOST_MARKS = 200;

function entriesOf(cell: ICodeCellModel): IEntry[] {
  const found: IEntry[] = [];
  for (let n = 0; n < cell.outputs.length; n++) {
    const shown = shownBy(cell.outputs.get(n));
    if (shown) {
      found.push({ cell, count: cell.executionCount, shown });
    }
  }
  return found;
}

/** Falls from report to newer report; that of a cell which still runs is the newest. */
function age({ cell, count }: IEntry): number {
  return cell.executionState === 'running' ? -Number.MAX_VALUE : -(count ?? 0);
}

function alike(a: IEntry, b: IEntry): boolean {
  return a.shown === b.shown && a.count === b.count;
}

/** What outputs hold; to ask one for its data copies all of it, so it is asked once. */
const known = new WeakMap<IOutputModel, Shown | null>();

function shownBy(output: IOutputModel): Shown | null {
  let shown = known.get(output);
  if (shown === undefined) {
    const rich = output.type === 'execute_result' || output.type === 'display_data';
    shown = rich ? decode(output.data) : null;
    known.set(output, shown);
    output.changed.connect(forget);
  }
  return shown;
}

function forget(output: IOutputModel): void {
  known.delete(output);
  output.changed.disconnect(forget);
}

function decode(data: ReadonlyPartialJSONObject): Shown | null {
  if (data[MIME_TYPE] !== undefined) {
    const result = decodeReport(data[MIME_TYPE]);
    return result.ok ? { kind: 'report', report: result.report } : null;
  }
  const preflight = decodePreflight(data[PREFLIGHT_MIME_TYPE]);
  return preflight && { kind: 'preflight', preflight };
}

function isCode(cell: ICellModel): cell is ICodeCellModel {
  return cell.type === 'code';
}

function cellText(cell: ICellModel): ICellText {
  const source = isCode(cell) ? cell.sharedModel.getSource() : '';
  return { executionCount: isCode(cell) ? cell.executionCount : null, ...textOf(source) };
}
