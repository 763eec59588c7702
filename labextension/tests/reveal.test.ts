import type { JupyterFrontEnd } from '@jupyterlab/application';
import { PageConfig } from '@jupyterlab/coreutils';
import type { IDocumentManager } from '@jupyterlab/docmanager';
import { Signal } from '@lumino/signaling';
import { beforeEach, describe, expect, it } from 'vitest';
import { addCommands } from '../src/notebook/commands';
import type { Current } from '../src/notebook/current';
import { findCell, textOf } from '../src/notebook/locate';
import { Marks } from '../src/notebook/marks';
import { Revealer } from '../src/notebook/reveal';
import type { NotebookWatch } from '../src/notebook/watch';
import { decodeReport } from '../src/report/decode';
import type { ISource } from '../src/report/format';
import { samples, words } from './words';

const decoded = decodeReport(samples.reports['forward']!.report);
const FINDING = decoded.ok ? decoded.report.findings[0]! : null;
const SOURCE: ISource = {
  file: '/home/me/src/train.py',
  line: 2,
  code: 'y = x.log()',
  function: '',
  cell: null
};

/** An editor of a file, with what was typed into it since it was opened. */
class Editor {
  readonly model;
  line = 0;

  constructor(readonly text: string) {
    const changed = new Signal<object, object>({});
    this.model = { sharedModel: { changed, getSource: () => this.text } };
  }

  get lineCount(): number {
    return this.text.split('\n').length;
  }

  focus(): void {}
  revealPosition(): void {}

  setCursorPosition(position: { line: number }): void {
    this.line = position.line + 1;
  }
}

/** A notebook of cells with these texts, of which the first ran as number 5. */
class Notebook {
  readonly node = document.createElement('div');
  readonly panel;
  /** The cell and line that were gone to. */
  went: number[] = [];
  /** How often it was scrolled to a cell, and how often that is to be before one is in view. */
  scrolls = 0;
  needs = 1;

  constructor(kernel: string, ...texts: string[]) {
    const cells = texts.map((text, n) => ({ executionCount: 5 + n, ...textOf(text) }));
    const content = {
      widgets: texts.map((text, n) => {
        const editor = Object.assign(new Editor(text), {
          setCursorPosition: ({ line }: { line: number }) => (this.went = [n, line + 1])
        });
        const node = { getBoundingClientRect: () => this.rectangle(this.scrolls < this.needs) };
        return { editor, node, ready: Promise.resolve() };
      }),
      node: { getBoundingClientRect: () => this.rectangle(false) },
      deselectAll: () => undefined,
      scrollToCell: () => Promise.resolve(this.scrolls++)
    };
    const sessionContext = { session: { kernel: { id: kernel } } };
    this.panel = { node: this.node, content, sessionContext, context: { path: 'a.ipynb' } };
    this.find = source => findCell(cells, source);
  }

  readonly find: NotebookWatch['find'];

  private rectangle(below: boolean): DOMRect {
    return new DOMRect(0, below ? 500 : 0, 100, 100);
  }

  get watch(): NotebookWatch {
    return this as unknown as NotebookWatch;
  }
}

let notebooks: Notebook[];
let files: Record<string, string>;
let editors: Record<string, Editor>;
let marks: Marks;
let revealer: Revealer;

beforeEach(() => {
  PageConfig.setOption('serverRoot', '/home/me');
  [files, editors, marks, notebooks] = [{}, {}, new Marks(), []];
  const contents = {
    get: (path: string) => {
      const content = files[path];
      return content === undefined ? Promise.reject(new Error()) : Promise.resolve({ content });
    }
  };
  const shell = { activateById: () => undefined };
  const documents = {
    openOrReveal: (path: string) => {
      const editor = (editors[path] ??= new Editor(files[path]!));
      const context = { ready: Promise.resolve() };
      return { context, content: { editor }, disposed: new Signal<object, void>({}) };
    }
  };
  revealer = new Revealer(
    { serviceManager: { contents }, shell } as unknown as JupyterFrontEnd,
    documents as unknown as IDocumentManager,
    words,
    marks,
    () => notebooks.map(({ watch }) => watch)
  );
});

function marked(path: string): number[] {
  return marks.of(editors[path]!.model as never).map(mark => mark.line);
}

describe('the link to a file', () => {
  it('marks its line where that reads like that', async () => {
    files['src/train.py'] = 'import torch\n  y = x.log()\n';
    await revealer.reveal(SOURCE, null, FINDING);
    expect(editors['src/train.py']!.line).toBe(2);
    expect(marked('src/train.py')).toEqual([2]);
  });

  it('follows a line that was moved, and marks none then', async () => {
    files['src/train.py'] = 'import torch\n\n\ny = x.log()\n';
    files['train.py'] = 'y = x.log()';
    await revealer.reveal(SOURCE, null, FINDING);
    expect(Object.keys(editors)).toEqual(['src/train.py']);
    expect(editors['src/train.py']!.line).toBe(4);
    expect(marked('src/train.py')).toEqual([]);
  });

  it('follows a line that was moved in the editor but not in the file', async () => {
    files['src/train.py'] = 'import torch\ny = x.log()\n';
    editors['src/train.py'] = new Editor('import torch\nimport math\ny = x.log()\n');
    await revealer.reveal(SOURCE, null, FINDING);
    expect(editors['src/train.py'].line).toBe(3);
    expect(marked('src/train.py')).toEqual([]);
  });

  it('does not take another file of that name for it', async () => {
    files['train.py'] = 'y = x.log()';
    await revealer.reveal({ ...SOURCE, file: '/cluster/train.py' }, null, FINDING);
    expect(editors).toEqual({});
  });
});

describe('the link to a cell', () => {
  const line = { ...SOURCE, cell: 5 };
  const good = 'import torch\ny = x.log()';

  it('stays in the notebook of the report, also where another one has a copy of it', async () => {
    const [own, copy] = [new Notebook('k', 'import torch\ny = x.exp()'), new Notebook('l', good)];
    notebooks = [own, copy];
    await revealer.reveal(line, own.node, FINDING);
    expect([own.went, copy.went]).toEqual([[0, 2], []]);
  });

  it('leads to another notebook of the same kernel, whose cell was run there', async () => {
    const [own, other] = [new Notebook('k', '%nanhunt model f'), new Notebook('k', 'a', good)];
    notebooks = [own, other];
    await revealer.reveal({ ...line, cell: 6 }, own.node, FINDING);
    expect([own.went, other.went]).toEqual([[], [1, 2]]);
  });

  it('leads from a file to any notebook that is open', async () => {
    notebooks = [new Notebook('k', 'a'), new Notebook('l', good)];
    await revealer.reveal(line, document.createElement('p'), FINDING);
    expect(notebooks.map(({ went }) => went)).toEqual([[], [0, 2]]);
  });

  it('is followed again where a notebook that is still being drawn has moved', async () => {
    const own = new Notebook('k', good);
    own.needs = 3;
    notebooks = [own];
    await revealer.reveal(line, own.node, FINDING);
    expect([own.scrolls, own.went]).toEqual([3, [0, 2]]);
  });

  it('is given by the keys as from the notebook in front', async () => {
    const [own, copy] = [new Notebook('k', 'import torch\ny = x.exp()'), new Notebook('l', good)];
    notebooks = [own, copy];
    const commands = new Map<string, () => Promise<void>>();
    const app = {
      commands: {
        addCommand: (name: string, { execute }: { execute: () => Promise<void> }) =>
          commands.set(name, execute)
      }
    };
    const current = {
      changed: new Signal<object, void>({}),
      watch: own.watch,
      neighbour: () => ({ ...FINDING, source: line })
    };
    addCommands(
      app as unknown as JupyterFrontEnd,
      current as unknown as Current,
      revealer,
      {} as never,
      words.trans,
      null
    );
    await commands.get('nanhunt:next-finding')!();
    expect([own.went, copy.went]).toEqual([[0, 2], []]);
  });
});
