import { describe, expect, it } from 'vitest';
import { decodeReport } from '../src/report/decode';
import type { IFinding } from '../src/report/format';
import { ModuleModel } from '../src/report/modules';
import type { IModuleQuery } from '../src/report/modules';
import { samples } from './words';

type Output = { nan?: number; posinf?: number; headroom?: number; dtype?: string };

/** A finding whose modules ran in this order with these outputs. */
function finding(frames: readonly (readonly [string, Output])[], module: string | null): IFinding {
  const stats = { name: 'output', shape: [2], dtype: 'float16', device: 'cpu', numel: 2 };
  const report = structuredClone(samples.reports['forward']!.report) as {
    findings: Record<string, unknown>[];
  };
  Object.assign(report.findings[0]!, {
    module,
    frames: frames.map(([path, output]) => {
      return { module: path, call: 1, kind: 'Linear', output: { ...stats, ...output } };
    })
  });
  const decoded = decodeReport(report);
  if (!decoded.ok) {
    throw new Error('not read');
  }
  return decoded.report.findings[0]!;
}

const TREE: IModuleQuery = { order: 'tree', search: '', suspicious: false };
const NET = finding(
  [
    ['encoder.layers.0.attn', { headroom: 9 }],
    ['encoder.layers.0.norm', { headroom: 0.5 }],
    ['encoder.layers.1.attn', { posinf: 1 }],
    ['decoder.head', { nan: 2 }]
  ],
  'encoder.layers.1.attn'
);

function paths(model: ModuleModel, query: Partial<IModuleQuery> = {}): string[] {
  return model.rows({ ...TREE, ...query }).map(row => row.path);
}

describe('the module tree', () => {
  it('holds every module and those on the way to it, in the order of their calls', () => {
    const model = new ModuleModel(NET);
    expect(paths(model)).toEqual([
      '',
      'encoder',
      'encoder.layers',
      'encoder.layers.0',
      'encoder.layers.0.attn',
      'encoder.layers.0.norm',
      'encoder.layers.1',
      'encoder.layers.1.attn',
      'decoder',
      'decoder.head'
    ]);
    expect(model.rows(TREE).map(row => row.level)).toEqual([1, 2, 3, 4, 5, 5, 4, 5, 2, 3]);
    expect(model.size).toBe(10);
  });

  it('says what is wrong with each', () => {
    const rows = new ModuleModel(NET).rows(TREE).filter(row => row.frame);
    expect(rows.map(row => row.state)).toEqual(['clean', 'near', 'producer', 'nan']);
  });

  it('finds by path and class, and keeps the way to what it found', () => {
    const model = new ModuleModel(NET);
    expect(paths(model, { search: 'LAYERS.0 norm' })).toEqual([
      '',
      'encoder',
      'encoder.layers',
      'encoder.layers.0',
      'encoder.layers.0.norm'
    ]);
    expect(paths(model, { search: 'linear head' })).toEqual(['', 'decoder', 'decoder.head']);
    expect(paths(model, { search: 'nowhere' })).toEqual([]);
  });

  it('shows only what is suspicious when asked', () => {
    const model = new ModuleModel(NET);
    expect(paths(model, { suspicious: true })).not.toContain('encoder.layers.0.attn');
    expect(paths(model, { suspicious: true, order: 'calls' })).toEqual([
      'encoder.layers.0.norm',
      'encoder.layers.1.attn',
      'decoder.head'
    ]);
  });

  it('folds and unfolds; what is folded shows the worst below it', () => {
    const model = new ModuleModel(NET);
    model.toggle('encoder');
    expect(paths(model)).toEqual(['', 'encoder', 'decoder', 'decoder.head']);
    expect(model.rows(TREE)[1]).toMatchObject({ state: 'producer', expanded: false });
    expect(paths(model, { search: 'norm' })).toContain('encoder.layers.0.norm');
    model.toggle('encoder');
    expect(paths(model)).toHaveLength(10);
  });

  it('opens 10,000 modules at the culprit, the rest folded', () => {
    const many = Array.from({ length: 10_000 }, (_, n) => {
      return [`blocks.${Math.floor(n / 10)}.${n % 10}`, {}] as const;
    });
    const model = new ModuleModel(finding(many, 'blocks.500.3'));
    const rows = paths(model);
    expect(model.size).toBe(11_002);
    expect(rows).toContain('blocks.500.3');
    expect(rows).toHaveLength(2 + 1000 + 10);
  });

  it('survives names that no module has', () => {
    const odd = [
      '.',
      '..a',
      '',
      '__proto__',
      'constructor.x',
      'a.'.repeat(100_000),
      'x'.repeat(1e6)
    ];
    const model = new ModuleModel(
      finding(
        odd.map(path => [path, { nan: 1 }] as const),
        null
      )
    );
    expect(paths(model)).toEqual(expect.arrayContaining(odd));
  });
});
