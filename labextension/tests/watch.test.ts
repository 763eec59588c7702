import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { Signal } from '@lumino/signaling';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Current } from '../src/notebook/current';
import { Marks } from '../src/notebook/marks';
import { NotebookWatch } from '../src/notebook/watch';
import { MIME_TYPE, PREFLIGHT_MIME_TYPE } from '../src/report/format';
import { samples, words } from './words';

const CELL = samples.reports['cell']!.report;
const LINE = 'loss = model(x).log().mean()';

/** An output as a notebook's model has it. */
class Output {
  readonly type = 'execute_result';
  readonly changed = new Signal<this, void>(this);
  asked = 0;

  constructor(public bundle: Record<string, unknown>) {}

  get data(): Record<string, unknown> {
    this.asked++;
    return this.bundle;
  }
}

/** A code cell; execution counts and outputs can be changed. */
class Cell {
  readonly type = 'code';
  executionState = 'idle';
  readonly changed = new Signal<this, { sourceChange?: unknown }>(this);
  readonly sharedModel = Object.assign(this.changed, {
    changed: this.changed,
    getSource: () => this.source
  });

  constructor(
    public executionCount: number | null,
    public source: string,
    public list: Output[] = []
  ) {}

  get outputs(): { length: number; get(n: number): Output } {
    return { length: this.list.length, get: n => this.list[n]! };
  }
}

/** A notebook's panel, as far as it is watched. */
class Panel {
  readonly disposed = new Signal<this, void>(this);
  isDisposed = false;
  readonly node = document.createElement('div');
  readonly content: {
    modelChanged: Signal<object, void>;
    model: { cells: Cell[]; contentChanged: Signal<object, void> };
  };

  constructor(cells: Cell[]) {
    const model = { cells, contentChanged: new Signal<object, void>({}) };
    this.content = { modelChanged: new Signal<object, void>({}), model };
  }

  change(): void {
    this.content.model.contentChanged.emit();
    vi.runAllTimers();
  }

  close(): void {
    this.isDisposed = true;
    this.disposed.emit();
  }

  get panel(): NotebookPanel {
    return this as unknown as NotebookPanel;
  }
}

function culprit(count: number): Cell {
  return new Cell(count, `1\n2\n3\n4\n5\n6\n${LINE}`);
}

let marks: Marks;

beforeEach(() => {
  vi.useFakeTimers();
  marks = new Marks();
});

afterEach(() => {
  vi.useRealTimers();
  marks.dispose();
});

function watch(panel: Panel): NotebookWatch {
  const made = new NotebookWatch(panel.panel, marks, words);
  vi.runAllTimers();
  return made;
}

function marked(cell: Cell): number[] {
  return marks.of(cell as never).map(mark => mark.line);
}

describe('the watch over a notebook', () => {
  it('lists reports and preflights, newest first, and passes over everything else', () => {
    const panel = new Panel([
      new Cell(7, 'a', [new Output({ [MIME_TYPE]: CELL })]),
      new Cell(null, 'b', [new Output({ 'text/plain': 'x' }), new Output({ [MIME_TYPE]: 'x' })]),
      new Cell(9, 'c', [new Output({ [PREFLIGHT_MIME_TYPE]: samples.preflight })])
    ]);
    const kinds = watch(panel).entries.map(entry => [entry.cell.executionCount, entry.shown.kind]);
    expect(kinds).toEqual([
      [9, 'preflight'],
      [7, 'report']
    ]);
  });

  it('marks the line of a finding in the cell that still has it', () => {
    const [cell, other] = [culprit(3), new Cell(2, 'other')];
    watch(new Panel([other, cell, new Cell(4, '', [new Output({ [MIME_TYPE]: CELL })])]));
    expect(marked(cell)).toEqual([7]);
    expect(marked(other)).toEqual([]);
  });

  it('marks the line below the empty lines with which its cell begins', () => {
    const cell = new Cell(3, `\n \n1\n2\n3\n4\n5\n6\n${LINE}`);
    watch(new Panel([cell, new Cell(4, '', [new Output({ [MIME_TYPE]: CELL })])]));
    expect(marked(cell)).toEqual([9]);
  });

  it('asks an output for its data once, and again when it tells of a change', () => {
    const output = new Output({ [MIME_TYPE]: CELL });
    const panel = new Panel([new Cell(1, '', [output])]);
    const made = watch(panel);
    panel.change();
    panel.change();
    expect(output.asked).toBe(1);
    output.bundle = {};
    output.changed.emit();
    panel.change();
    expect(output.asked).toBe(2);
    expect(made.entries).toEqual([]);
  });

  it('tells of changes of the reports, not of every keystroke', () => {
    const panel = new Panel([new Cell(1, '', [])]);
    const made = watch(panel);
    const told = vi.fn();
    made.changed.connect(told);
    panel.change();
    expect(told).not.toHaveBeenCalled();
    panel.content.model.cells[0]!.list.push(new Output({ [MIME_TYPE]: CELL }));
    panel.content.model.contentChanged.emit();
    panel.change();
    expect(told).toHaveBeenCalledTimes(1);
  });

  it('tells of the number that a cell gets after its report', () => {
    const cell = new Cell(null, '', [new Output({ [MIME_TYPE]: CELL })]);
    const panel = new Panel([cell]);
    const made = watch(panel);
    const told = vi.fn();
    made.changed.connect(told);
    cell.executionCount = 5;
    panel.change();
    expect(told).toHaveBeenCalledTimes(1);
    panel.change();
    expect(told).toHaveBeenCalledTimes(1);
  });

  it('takes a report whose cell still runs for the newest', () => {
    const running = new Cell(null, '', [new Output({ [MIME_TYPE]: CELL })]);
    running.executionState = 'running';
    const done = new Cell(8, '', [new Output({ [MIME_TYPE]: CELL })]);
    const never = new Cell(null, '', [new Output({ [MIME_TYPE]: CELL })]);
    const made = watch(new Panel([running, done, never]));
    expect(made.entries.map(({ cell }) => cell)).toEqual([running, done, never]);
  });

  it('marks no more findings than a person looks at', () => {
    const source = Array.from({ length: 300 }, (_, n) => `x${n}`).join('\n');
    const cell = new Cell(3, source);
    const { findings } = CELL as { findings: { source: object }[] };
    const reports = Array.from({ length: 30 }, (_, n) => {
      const ten = Array.from({ length: 10 }, (_, k) => {
        const line = 10 * n + k;
        const place = { ...findings[0]!.source, line: line + 1, code: `x${line}` };
        return { ...findings[0]!, source: place };
      });
      return new Output({ [MIME_TYPE]: { ...(CELL as object), findings: ten } });
    });
    watch(new Panel([cell, new Cell(4, '', reports)]));
    expect(marked(cell)).toHaveLength(200);
    expect(marked(cell)[0]).toBe(291); // the newest report comes first
  });

  it('takes its marks away with the report, and with the notebook', () => {
    const cell = culprit(3);
    const shown = new Cell(4, '', [new Output({ [MIME_TYPE]: CELL })]);
    const panel = new Panel([cell, shown]);
    watch(panel);
    expect(marked(cell)).toEqual([7]);
    shown.list = [];
    panel.change();
    expect(marked(cell)).toEqual([]);
    shown.list = [new Output({ [MIME_TYPE]: structuredClone(CELL) })];
    panel.change();
    expect(marked(cell)).toEqual([7]);
    panel.close();
    expect(marked(cell)).toEqual([]);
    panel.content.model.contentChanged.emit();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('the current notebook', () => {
  function tracker(panels: Panel[]) {
    const made = {
      widgetAdded: new Signal<object, NotebookPanel>({}),
      currentChanged: new Signal<object, NotebookPanel | null>({}),
      currentWidget: panels[0]?.panel ?? null,
      forEach: (each: (panel: NotebookPanel) => void) => panels.forEach(p => each(p.panel))
    };
    return { made, tracker: made as unknown as INotebookTracker };
  }

  it('leads from finding to finding and around the end, in both directions', () => {
    const two = structuredClone(CELL) as { findings: object[] };
    two.findings.push({ ...two.findings[0], step: 38 }, { ...two.findings[0], source: null });
    const panel = new Panel([new Cell(1, '', [new Output({ [MIME_TYPE]: two })])]);
    const current = new Current(tracker([panel]).tracker, marks, words);
    vi.runAllTimers();
    const steps = ([1, 1, 1, -1, -1] as const).map(step => current.neighbour(step)!.step);
    expect(steps).toEqual([37, 38, 37, 38, 37]);
    current.dispose();
  });

  it('keeps the marks of a notebook of which one view of two is closed', () => {
    const cell = culprit(3);
    const first = new Panel([cell, new Cell(4, '', [new Output({ [MIME_TYPE]: CELL })])]);
    const second = new Panel([]);
    second.content.model = first.content.model;
    const current = new Current(tracker([first, second]).tracker, marks, words);
    vi.runAllTimers();
    second.close();
    vi.runAllTimers();
    expect(marked(cell)).toEqual([7]);
    current.dispose();
  });

  it('changes with the notebook in front, and forgets one that is closed', () => {
    const [first, second] = [new Panel([]), new Panel([])];
    const { made, tracker: all } = tracker([first, second]);
    const current = new Current(all, marks, words);
    const told = vi.fn();
    current.changed.connect(told);
    expect(current.watch!.panel).toBe(first.panel);
    made.currentWidget = second.panel;
    made.currentChanged.emit(second.panel);
    expect(told).toHaveBeenCalledTimes(1);
    expect(current.all.map(each => each.panel)).toEqual([second.panel, first.panel]);
    first.close();
    expect(current.all.map(each => each.panel)).toEqual([second.panel]);
    current.dispose();
    expect(current.neighbour(1)).toBeNull();
  });
});
