import type { JupyterFrontEnd } from '@jupyterlab/application';
import { PageConfig } from '@jupyterlab/coreutils';
import type { IDocumentManager } from '@jupyterlab/docmanager';
import { Signal } from '@lumino/signaling';
import { beforeEach, describe, expect, it } from 'vitest';
import { Marks } from '../src/notebook/marks';
import { Revealer } from '../src/notebook/reveal';
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

let files: Record<string, string>;
let editors: Record<string, Editor>;
let marks: Marks;
let revealer: Revealer;

beforeEach(() => {
  PageConfig.setOption('serverRoot', '/home/me');
  [files, editors, marks] = [{}, {}, new Marks()];
  const contents = {
    get: (path: string) => {
      const content = files[path];
      return content === undefined ? Promise.reject(new Error()) : Promise.resolve({ content });
    }
  };
  const documents = {
    openOrReveal: (path: string) => {
      const editor = (editors[path] ??= new Editor(files[path]!));
      const context = { ready: Promise.resolve() };
      return { context, content: { editor }, disposed: new Signal<object, void>({}) };
    }
  };
  revealer = new Revealer(
    { serviceManager: { contents } } as unknown as JupyterFrontEnd,
    documents as unknown as IDocumentManager,
    words,
    marks,
    () => []
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
