import { describe, expect, it } from 'vitest';
import { findCell, servedPaths } from '../src/notebook/locate';
import type { ISource } from '../src/report/format';

const SOURCE: ISource = { file: '/tmp/1.py', line: 2, code: 'y = x.log()', function: '', cell: 5 };

function cells(...made: (readonly [number | null, string])[]) {
  return made.map(([executionCount, text]) => ({ executionCount, lines: text.split('\n') }));
}

describe('the cell of a source', () => {
  it('is the one with its count that still reads like that', () => {
    const notebook = cells([4, 'a\ny = x.log()'], [5, 'b\n    y = x.log()  ']);
    expect(findCell(notebook, SOURCE)).toEqual({ cell: 1, unchanged: true });
  });

  it('is the only one that reads like that, whatever its count is now', () => {
    const notebook = cells([5, 'other'], [null, 'a\ny = x.log()']);
    expect(findCell(notebook, SOURCE)).toEqual({ cell: 1, unchanged: true });
  });

  it('is the one with its count, told as changed, where the line is gone', () => {
    const notebook = cells([4, 'a'], [5, 'y = x.log()\n']);
    expect(findCell(notebook, SOURCE)).toEqual({ cell: 1, unchanged: false });
  });

  it('is not guessed', () => {
    const twins = cells([1, 'a\ny = x.log()'], [2, 'b\ny = x.log()']);
    expect(findCell(twins, SOURCE)).toBeNull();
    expect(findCell([], SOURCE)).toBeNull();
    expect(findCell(cells([5, 'a\ny = x.log()']), { ...SOURCE, cell: null })).toBeNull();
  });

  it('is not taken for unchanged when the report has no text of the line', () => {
    expect(findCell(cells([5, 'a\n']), { ...SOURCE, code: '' })).toEqual({
      cell: 0,
      unchanged: false
    });
  });
});

describe('the file of a source', () => {
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
