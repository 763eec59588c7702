import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { decodeReport } from '../src/report/decode';
import { ModuleTable } from '../src/report/moduleTable';
import { samples, words } from './words';

let table: ModuleTable;
let grid: HTMLElement;

beforeAll(() => {
  // jsdom lays nothing out and has no observer of sizes.
  globalThis.ResizeObserver = class {
    observe(): void {}
    unobserve(): void {}
    disconnect(): void {}
  };
});

beforeEach(() => {
  const decoded = decodeReport(samples.reports['forward']!.report);
  if (!decoded.ok) {
    throw new Error('not read');
  }
  const output = decoded.report.findings[0]!.frames[0]!.output;
  const frames = ['a.b.c', 'a.b.d', 'e'].map(module => {
    return { module, call: 1, kind: 'Linear', output };
  });
  table = new ModuleTable({ ...decoded.report.findings[0]!, frames, module: 'e' }, words);
  document.body.append(table.node);
  grid = table.node.querySelector<HTMLElement>('[role=treegrid]')!;
});

afterEach(() => {
  table.dispose();
  table.node.remove();
});

function press(...keys: string[]): void {
  keys.forEach(key => grid.dispatchEvent(new KeyboardEvent('keydown', { key })));
}

/** The name in the row that the keyboard is in. */
function active(): string | null {
  const row = document.getElementById(grid.getAttribute('aria-activedescendant')!);
  return row!.querySelector('.nanhunt-ModuleTable-name')!.getAttribute('title');
}

describe('the keyboard in the module table', () => {
  it('folds, unfolds and goes to the parent', () => {
    press('Home', 'ArrowDown', 'ArrowRight');
    expect(active()).toBe('a.b');
    press('ArrowLeft');
    expect(grid.querySelectorAll('[aria-expanded=false]')).toHaveLength(1);
    press('ArrowLeft');
    expect(active()).toBe('a');
  });

  it('goes to the parent also where a search holds everything unfolded', () => {
    const search = table.node.querySelector('input')!;
    search.value = 'a.b.d';
    search.dispatchEvent(new Event('input'));
    press('End');
    expect(active()).toBe('a.b.d');
    press('ArrowLeft', 'ArrowLeft');
    expect(active()).toBe('a');
  });
});
