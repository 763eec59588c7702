import { beforeAll, describe, expect, it, vi } from 'vitest';
import { decodeReport } from '../src/report/decode';
import type { IReport } from '../src/report/format';
import { ReportView } from '../src/report/view';
import { Wording } from '../src/report/wording';
import { samples, words } from './words';

const disconnected = vi.fn();

beforeAll(() => {
  // jsdom lays nothing out and has no observer of sizes.
  globalThis.ResizeObserver = class {
    observe(): void {}
    unobserve(): void {}
    disconnect = disconnected;
  };
});

function report(data: unknown): IReport {
  const decoded = decodeReport(data);
  if (!decoded.ok) {
    throw new Error(words.refusal(decoded.why));
  }
  return decoded.report;
}

function unfold(node: HTMLElement): void {
  for (const fold of node.querySelectorAll('details')) {
    fold.open = true;
    fold.dispatchEvent(new Event('toggle'));
  }
}

/** A copy of a report in which every text is the given one. */
function filled(value: unknown, text: string): unknown {
  if (typeof value === 'string') {
    return text;
  }
  if (Array.isArray(value)) {
    return value.map(item => filled(item, text));
  }
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, filled(item, text)])
    );
  }
  return value;
}

const ALLOWED = new Set(
  'SECTION P SPAN STRONG DIV PRE CODE DL DT DD DETAILS SUMMARY TABLE THEAD TBODY TR TH TD UL LI FIGURE FIGCAPTION BUTTON INPUT SELECT OPTION LABEL SVG TITLE PATH'.split(
    ' '
  )
);
const HOSTILE = [
  '<script>alert(1)</script>',
  '"><img src=x onerror=alert(1)>',
  "' onmouseover='alert(1)",
  '&lt;b&gt; &amp;',
  '\u202e\u0000\u001b[31m'
];

describe('the view of a report', () => {
  it.each(Object.keys(samples.reports))('says the verdict of "%s" first', name => {
    const view = new ReportView(report(samples.reports[name]!.report), words, null);
    expect(view.node.querySelector('strong')!.textContent).toBe(samples.reports[name]!.verdict);
    expect(view.node.querySelector('span')!.textContent).toBe(`${samples.reports[name]!.sign} `);
    view.dispose();
  });

  it.each(Object.keys(samples.reports))('tells every fact of "%s" that Python tells', name => {
    const view = new ReportView(report(samples.reports[name]!.report), words, null);
    unfold(view.node);
    for (const fact of samples.reports[name]!.facts) {
      expect(view.node.textContent).toContain(fact);
    }
    view.dispose();
  });

  it('asks for the line that its link names', () => {
    const open = vi.fn();
    const view = new ReportView(report(samples.reports['cell']!.report), words, open);
    const link = view.node.querySelector<HTMLElement>('.nanhunt-Report-culprit button')!;
    expect(link.textContent).toBe('cell [3], line 7');
    link.click();
    expect(open.mock.calls[0]![0]).toMatchObject({ cell: 3, line: 7 });
    expect(open.mock.calls[0]![1]).toBe(link);
    expect(open.mock.calls[0]![2]).toMatchObject({ kind: 'nan' });
  });

  it('names the line as text where nothing can be opened', () => {
    const view = new ReportView(report(samples.reports['forward']!.report), words, null);
    expect(view.node.querySelector('.nanhunt-Report-culprit button')).toBeNull();
    expect(view.node.textContent).toContain('train.py:41');
  });

  it.each(HOSTILE)('shows %j as text and makes no element of it', text => {
    const plain = samples.reports['trials']!.report as Record<string, unknown>;
    const bad = {
      ...(filled(plain, text) as object),
      format: plain['format'],
      version: plain['version']
    } as unknown as { findings: Record<string, unknown>[] };
    // Numbers that are written as text stay numbers, or the decoder refuses them.
    for (const finding of bad.findings) {
      finding['severity'] = 'critical';
      for (const trial of finding['trials'] as Record<string, unknown>[]) {
        trial['loss'] = 'nan';
      }
    }
    const view = new ReportView(report(bad), words, () => undefined);
    unfold(view.node);
    const elements = [...view.node.querySelectorAll('*')];
    expect(elements.length).toBeGreaterThan(40);
    for (const element of elements) {
      expect(ALLOWED).toContain(element.tagName.toUpperCase());
      expect(element.getAttributeNames().filter(name => name.startsWith('on'))).toEqual([]);
    }
    expect(view.node.textContent).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  });

  it('cuts lists of a length that no hunt writes', () => {
    const forward = samples.reports['forward']!.report as { findings: object[] };
    const view = new ReportView(
      report({
        ...forward,
        notes: Array<string>(50_000).fill('note'),
        findings: Array<object>(5_000).fill(forward.findings[0]!)
      }),
      words,
      null
    );
    expect(view.node.querySelectorAll('*').length).toBeLessThan(2_000);
    expect(view.node.textContent).toContain('and 4,899 more findings');
  });

  it("says other findings' severity in the user's language", () => {
    const trans = Object.assign(Object.create(words.trans) as typeof words.trans, {
      __: (text: string) => ({ critical: 'kritisch', warning: 'Warnung' })[text] ?? text
    });
    const forward = samples.reports['forward']!.report as { findings: object[] };
    const [first] = forward.findings;
    const others = ['critical', 'warning', 'odd'].map(severity => ({ ...first, severity }));
    const view = new ReportView(
      report({ ...forward, findings: [first, ...others] }),
      new Wording(trans),
      null
    );
    const folds = [...view.node.querySelectorAll(':scope > details > summary')];
    const said = folds.map(fold => fold.textContent.split(':')[0]);
    expect(said).toEqual(expect.arrayContaining(['kritisch', 'Warnung', 'odd']));
    view.dispose();
  });

  it('is made in no time of a text of megabytes', () => {
    const trials = structuredClone(samples.reports['trials']!.report) as {
      findings: { source: unknown; trials: object[] }[];
    };
    const [finding] = trials.findings;
    finding!.source = { file: '/'.repeat(20_000_000), line: 1, code: 'x' };
    Object.assign(finding!.trials[0]!, { snippet: `x${'\n'.repeat(1_000_000)}x` });
    const data = report(trials);
    const start = performance.now();
    const view = new ReportView(data, words, null);
    unfold(view.node);
    expect(performance.now() - start).toBeLessThan(1000);
    view.dispose();
  });

  it('lets go of what it observed', () => {
    const view = new ReportView(report(samples.reports['forward']!.report), words, null);
    unfold(view.node);
    disconnected.mockClear();
    view.dispose();
    expect(disconnected).toHaveBeenCalledTimes(1);
  });
});
