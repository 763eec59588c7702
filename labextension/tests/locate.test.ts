import { describe, expect, it } from 'vitest';
import { findCell, findLine, servedPath, servedPaths, textOf } from '../src/notebook/locate';
import type { ISource } from '../src/report/format';

const SOURCE: ISource = { file: '/tmp/1.py', line: 2, code: 'y = x.log()', function: '', cell: 5 };

function cells(...made: (readonly [number | null, string])[]) {
  return made.map(([executionCount, text]) => ({ executionCount, ...textOf(text) }));
}

describe('the cell of a source', () => {
  it('is the one with its count that still reads like that', () => {
    const notebook = cells([4, 'a\ny = x.log()'], [5, 'b\n    y = x.log()  ']);
    expect(findCell(notebook, SOURCE)).toEqual({ cell: 1, line: 2, unchanged: true });
  });

  it('is the only one that reads like that, whatever its count is now', () => {
    const notebook = cells([5, 'other'], [null, 'a\ny = x.log()']);
    expect(findCell(notebook, SOURCE)).toEqual({ cell: 1, line: 2, unchanged: true });
  });

  it('is the one with its count, told as changed, where the line is gone', () => {
    const notebook = cells([4, 'a'], [5, 'y = x.exp()\n']);
    expect(findCell(notebook, SOURCE)).toEqual({ cell: 1, line: 2, unchanged: false });
  });

  it('is the one that reads like that of several with its count', () => {
    const notebook = cells([5, 'a\nb'], [5, 'a\ny = x.log()'], [7, 'a\ny = x.log()']);
    expect(findCell(notebook, SOURCE)).toEqual({ cell: 1, line: 2, unchanged: true });
  });

  it('is followed to where its line stands now', () => {
    const above = cells([4, 'a'], [5, 'y = x.log()\na\nb\nc\ny = x.log()\n']);
    expect(findCell(above, SOURCE)).toEqual({ cell: 1, line: 1, unchanged: false });
    const again = cells([5, 'a\nb'], [9, 'a\nb\nc\ny = x.log()']);
    expect(findCell(again, SOURCE)).toEqual({ cell: 1, line: 4, unchanged: false });
  });

  it('has the line below empty ones at its start, which IPython does not count', () => {
    const notebook = cells([5, '\n  \na\ny = x.log()']);
    expect(findCell(notebook, SOURCE)).toEqual({ cell: 0, line: 4, unchanged: true });
  });

  it('is not guessed', () => {
    const twins = cells([1, 'a\ny = x.log()'], [2, 'b\ny = x.log()']);
    expect(findCell(twins, SOURCE)).toBeNull();
    const moved = cells([1, 'y = x.log()'], [2, 'y = x.log()']);
    expect(findCell(moved, SOURCE)).toBeNull();
    const same = cells([5, 'a\ny = x.log()'], [5, 'b\ny = x.log()']);
    expect(findCell(same, SOURCE)).toMatchObject({ unchanged: false });
    expect(findCell([], SOURCE)).toBeNull();
    expect(findCell(cells([5, 'a\ny = x.log()']), { ...SOURCE, cell: null })).toBeNull();
  });

  it('is not taken for unchanged when the report has no text of the line', () => {
    for (const code of ['', '  ']) {
      expect(findCell(cells([5, 'a\n']), { ...SOURCE, code })).toEqual({
        cell: 0,
        line: 2,
        unchanged: false
      });
    }
  });
});

describe('the line of a file', () => {
  it('is the one of the report while it reads like that', () => {
    expect(findLine(textOf('\n  y = x.log()'), SOURCE)).toEqual({ line: 2, unchanged: true });
  });

  it('is the nearest one that reads like that, told as changed', () => {
    const text = textOf('y = x.log()\na\nb\ny = x.log()\ny = x.log()');
    expect(findLine(text, { ...SOURCE, line: 3 })).toEqual({ line: 4, unchanged: false });
    expect(findLine(textOf('a\n\n'), SOURCE)).toBeNull();
    expect(findLine(textOf('a\n\n'), { ...SOURCE, code: '' })).toBeNull();
  });
});

describe('the file of a source', () => {
  it('is known where it lies below the root', () => {
    expect(servedPath('/home/me/proj/src/train.py', '/home/me/proj/')).toBe('src/train.py');
    expect(servedPath('C:\\me\\proj\\train.py', 'C:/me')).toBe('proj/train.py');
    expect(servedPath('/scratch/train.py', '/home/me')).toBeNull();
    expect(servedPath('/home/me/../you.py', '/home/me')).toBeNull();
    expect(servedPath('/train.py', '')).toBeNull();
  });

  it('is looked for below the root first', () => {
    expect(servedPaths('/home/me/proj/src/train.py', '/home/me/proj', '')[0]).toBe('src/train.py');
    expect(servedPaths('/home/me/proj/src/train.py', '~/proj', '')[0]).toBe('src/train.py');
  });

  it('is looked for by ever shorter ends, and beside the notebook', () => {
    expect(servedPaths('/scratch/run/train.py', '/home/me', 'book')).toEqual([
      'scratch/run/train.py',
      'run/train.py',
      'train.py',
      'book/train.py'
    ]);
    expect(servedPaths('C:\\me\\train.py', '', '')).toContain('train.py');
  });

  it('never leaves the folders that are served', () => {
    const all = servedPaths('/home/me/../../../etc/passwd', '/home/me', 'book');
    expect(all.filter(path => path.split('/').includes('..'))).toEqual([]);
    expect(servedPaths('/'.repeat(1000) + 'x/'.repeat(1000), '/', 'b').length).toBeLessThan(20);
  });
});
