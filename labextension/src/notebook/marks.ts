/** Marks on lines of code, shown in every editor of the text until that text changes. */
import { RangeSetBuilder, StateEffect } from '@codemirror/state';
import type { Extension } from '@codemirror/state';
import { Decoration, EditorView, ViewPlugin, WidgetType } from '@codemirror/view';
import type { DecorationSet, ViewUpdate } from '@codemirror/view';
import type { CodeEditor } from '@jupyterlab/codeeditor';
import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { h } from '../dom';
import type { IFinding } from '../report/format';
import { sign } from '../report/wording';

export interface IMark {
  /** What is marked; it is not marked again once its text has changed. */
  readonly finding: IFinding;
  /** Counted from 1. */
  readonly line: number;
  /** A few words beside the line. */
  readonly short: string;
  /** The whole verdict, for the tooltip. */
  readonly verdict: string;
}

type Model = CodeEditor.IModel;

/** Which lines of which texts are marked. */
export class Marks implements IDisposable {
  /** Emitted with the text whose marks are others now. */
  get changed(): ISignal<this, Model> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  of(model: Model): readonly IMark[] {
    return this._marks.get(model) ?? [];
  }

  /** Marks these lines and no others; findings whose text has changed are left out. */
  set(model: Model, wanted: readonly IMark[]): void {
    const marks = wanted.filter(mark => !this._outdated.has(mark.finding));
    const old = this.of(model);
    if (marks.length === old.length && marks.every((mark, n) => mark.finding === old[n]!.finding)) {
      return;
    }
    model.sharedModel.changed.disconnect(this._onText, this);
    this._marks.delete(model);
    if (marks.length > 0) {
      this._marks.set(model, marks);
      model.sharedModel.changed.connect(this._onText, this);
    }
    this._changed.emit(model);
  }

  dispose(): void {
    if (!this._disposed) {
      this._disposed = true;
      for (const model of [...this._marks.keys()]) {
        this.set(model, []);
      }
      Signal.clearData(this);
    }
  }

  private _onText(sender: unknown, change: { sourceChange?: unknown }): void {
    if (change.sourceChange) {
      for (const [model, marks] of [...this._marks]) {
        if (model.sharedModel === sender) {
          marks.forEach(mark => this._outdated.add(mark.finding));
          this.set(model, []);
        }
      }
    }
  }

  private readonly _marks = new Map<Model, readonly IMark[]>();
  private readonly _outdated = new WeakSet<IFinding>();
  private readonly _changed = new Signal<this, Model>(this);
  private _disposed = false;
}

/** The editor extension that draws the marks of one text. */
export function markExtension(marks: Marks, model: Model): Extension {
  return ViewPlugin.define(view => new MarkView(view, marks, model), {
    decorations: plugin => plugin.decorations
  });
}

const redraw = StateEffect.define();

class MarkView {
  constructor(
    private readonly _view: EditorView,
    private readonly _marks: Marks,
    private readonly _model: Model
  ) {
    this.decorations = this._draw();
    _marks.changed.connect(this._onMarks, this);
  }

  decorations: DecorationSet;

  update(update: ViewUpdate): void {
    const asked = update.transactions.some(change => change.effects.some(e => e.is(redraw)));
    if (asked) {
      this.decorations = this._draw();
    } else if (update.docChanged) {
      this.decorations = this.decorations.map(update.changes);
    }
  }

  destroy(): void {
    this._marks.changed.disconnect(this._onMarks, this);
  }

  private _onMarks(_: Marks, model: Model): void {
    if (model === this._model) {
      // A change of the text tells of itself while the editor is still taking it in.
      queueMicrotask(() => this._view.dispatch({ effects: redraw.of(null) }));
    }
  }

  private _draw(): DecorationSet {
    const doc = this._view.state.doc;
    const made = new RangeSetBuilder<Decoration>();
    const inside = this._marks.of(this._model).filter(mark => mark.line <= doc.lines);
    for (const mark of [...inside].sort((a, b) => a.line - b.line)) {
      const line = doc.line(mark.line);
      const attributes = { class: `nanhunt-mark ${graveness(mark)}`, title: mark.verdict };
      made.add(line.from, line.from, Decoration.line({ attributes }));
      made.add(line.to, line.to, Decoration.widget({ widget: new MarkSign(mark), side: 1 }));
    }
    return made.finish();
  }
}

/** The words beside a marked line. */
class MarkSign extends WidgetType {
  constructor(private readonly _mark: IMark) {
    super();
  }

  override eq(other: MarkSign): boolean {
    return other._mark.finding === this._mark.finding;
  }

  override toDOM(): HTMLElement {
    const { finding, short, verdict } = this._mark;
    const label = { role: 'img', 'aria-label': verdict, title: verdict };
    return h('span', { class: 'nanhunt-mark-sign', ...label }, `${sign(finding)} ${short}`);
  }
}

function graveness({ finding }: IMark): string {
  return finding.severity === 'critical' ? 'nanhunt-mod-critical' : 'nanhunt-mod-warning';
}
