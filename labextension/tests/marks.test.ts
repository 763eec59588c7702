import { EditorState } from '@codemirror/state';
import { EditorView } from '@codemirror/view';
import type { CodeEditor } from '@jupyterlab/codeeditor';
import { Signal } from '@lumino/signaling';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { markExtension, Marks } from '../src/notebook/marks';
import type { IMark } from '../src/notebook/marks';
import type { IFinding } from '../src/report/format';

/** A text as the editors of JupyterLab have it: it tells when it changes. */
class Text {
  readonly changed = new Signal<this, { sourceChange?: unknown }>(this);

  get model(): CodeEditor.IModel {
    this._model ??= { sharedModel: this } as unknown as CodeEditor.IModel;
    return this._model;
  }

  private _model: CodeEditor.IModel | null = null;
}

function mark(line: number, severity = 'critical'): IMark {
  return {
    finding: { severity } as IFinding,
    line,
    short: 'NaN',
    verdict: `NaN is born in line ${line}`
  };
}

let marks: Marks;
let text: Text;
let view: EditorView;

beforeEach(() => {
  marks = new Marks();
  text = new Text();
  const extensions = [markExtension(marks, text.model)];
  view = new EditorView({ state: EditorState.create({ doc: 'a\nb\nc', extensions }) });
});

afterEach(() => {
  view.destroy();
  marks.dispose();
});

function marked(): (string | null)[] {
  return [...view.dom.querySelectorAll('.nanhunt-mark')].map(line => line.textContent);
}

describe('marks', () => {
  it('are drawn on their lines with the verdict as tooltip', async () => {
    marks.set(text.model, [mark(2)]);
    await Promise.resolve();
    expect(marked()).toEqual(['b✗ NaN']);
    const line = view.dom.querySelector('.nanhunt-mark')!;
    expect(line.getAttribute('title')).toBe('NaN is born in line 2');
  });

  it('tell a warning from what is critical, by a sign and not by colour alone', async () => {
    marks.set(text.model, [mark(1), mark(3, 'warning')]);
    await Promise.resolve();
    expect(marked()).toEqual(['a✗ NaN', 'c△ NaN']);
    expect(view.dom.querySelectorAll('.nanhunt-mark.nanhunt-mod-warning')).toHaveLength(1);
  });

  it('are drawn in an editor that is made later', () => {
    marks.set(text.model, [mark(3), mark(1)]);
    const later = new EditorView({
      state: EditorState.create({ doc: 'x\ny\nz', extensions: [markExtension(marks, text.model)] })
    });
    expect(later.dom.querySelectorAll('.nanhunt-mark')).toHaveLength(2);
    later.destroy();
  });

  it('vanish when the text changes, and the same finding is not marked again', async () => {
    const one = mark(2);
    marks.set(text.model, [one]);
    text.changed.emit({ sourceChange: [] });
    await Promise.resolve();
    expect(marked()).toEqual([]);
    marks.set(text.model, [one]);
    expect(marks.of(text.model)).toEqual([]);
    marks.set(text.model, [mark(2)]);
    expect(marks.of(text.model)).toHaveLength(1);
  });

  it('stay when something else than the text changes', () => {
    marks.set(text.model, [mark(2)]);
    text.changed.emit({});
    expect(marks.of(text.model)).toHaveLength(1);
  });

  it('outside the text are left out', async () => {
    marks.set(text.model, [mark(9)]);
    await Promise.resolve();
    expect(marked()).toEqual([]);
  });

  it('tell of a change once, and not when nothing changed', () => {
    const told = vi.fn();
    marks.changed.connect(told);
    const one = mark(1);
    marks.set(text.model, [one]);
    marks.set(text.model, [one]);
    marks.set(new Text().model, []);
    expect(told).toHaveBeenCalledTimes(1);
  });

  it('let go of texts and editors', () => {
    marks.set(text.model, [mark(1)]);
    marks.dispose();
    expect(marks.of(text.model)).toEqual([]);
    expect(() => text.changed.emit({ sourceChange: [] })).not.toThrow();
  });
});
