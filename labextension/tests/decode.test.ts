import { describe, expect, it } from 'vitest';
import { decodePreflight, decodeReport, MOST_CHARACTERS } from '../src/report/decode';
import type { Refusal } from '../src/report/decode';
import { mainFinding } from '../src/report/format';
import type { IReport } from '../src/report/format';
import { samples, words } from './words';

const FORWARD = samples.reports['forward']!.report as Record<string, unknown>;

function read(data: unknown): IReport {
  const decoded = decodeReport(data);
  if (!decoded.ok) {
    throw new Error(words.refusal(decoded.why));
  }
  return decoded.report;
}

function refusal(data: unknown): Refusal {
  const decoded = decodeReport(data);
  if (decoded.ok) {
    throw new Error('was read');
  }
  return decoded.why;
}

/** The sample with one value replaced, deep inside. */
function changed(path: readonly (string | number)[], value: unknown): unknown {
  const copy = structuredClone(FORWARD);
  let spot = copy as Record<string | number, unknown>;
  for (const key of path.slice(0, -1)) {
    spot = spot[key] as Record<string | number, unknown>;
  }
  spot[path[path.length - 1]!] = value;
  return copy;
}

describe('the decoder', () => {
  it.each(Object.keys(samples.reports))('reads the report "%s" that Python wrote', name => {
    const { report } = samples.reports[name]!;
    expect(read(report).findings.length).toBe((report as { findings: unknown[] }).findings.length);
    expect(read(JSON.stringify(report))).toEqual(read(report));
  });

  it('reads numbers that JSON does not have', () => {
    const trial = read(samples.reports['trials']!.report).findings[0]!.trials[1]!;
    expect(trial.loss).toBeNaN();
    const path = ['findings', 0, 'inputs', 0, 'absmax'];
    expect(read(changed(path, '-inf')).findings[0]!.inputs[0]!.absmax).toBe(-Infinity);
  });

  it('reads a histogram', () => {
    const { histogram } = read(FORWARD).findings[0]!.outputs[0]!;
    expect(histogram!.bins).toEqual([
      { exponent: -4, negative: 0, positive: 20 },
      { exponent: 3, negative: 9, positive: 31 }
    ]);
    expect(histogram!.binned).toBe(64);
  });

  it('gives absent fields their defaults and ignores unknown ones', () => {
    const report = read({ format: 'nanhunt.report', version: 1, steps_run: 3, later: [1] });
    expect(report.findings).toEqual([]);
    expect(report.replay).toBe('not_needed');
    expect(mainFinding(report)).toBeNull();
  });

  it.each([
    [['findings', 0, 'step'], '37', 'findings.0.step'],
    [['findings', 0, 'step'], 1.5, 'findings.0.step'],
    [['findings', 0, 'module'], 7, 'findings.0.module'],
    [['findings', 0, 'source', 'line'], null, 'findings.0.source.line'],
    [
      ['findings', 0, 'frames', 2, 'output', 'shape'],
      [1, 'x'],
      'findings.0.frames.2.output.shape.1'
    ],
    [['findings', 0, 'inputs', 0, 'absmax'], 'Infinity', 'findings.0.inputs.0.absmax'],
    [['findings', 0, 'inputs', 0, 'histogram'], {}, 'findings.0.inputs.0.histogram.numel'],
    [
      ['findings', 0, 'outputs', 0, 'histogram', 'bins'],
      [[1, 2]],
      'findings.0.outputs.0.histogram.bins.0'
    ],
    [['findings', 0, 'trials'], {}, 'findings.0.trials'],
    [['findings'], 'none', 'findings'],
    [['environment'], [], 'environment'],
    [['interrupted'], 'no', 'interrupted'],
    [['costs', 'replays'], true, 'costs.replays']
  ])('refuses a wrong type at %j and says where', (path, value, where) => {
    expect(refusal(changed(path, value))).toMatchObject({ kind: 'damaged', where });
  });

  it.each(['', '{"format": "nanhunt.rep', '[NaN]', '\u0000'])('refuses %j as no JSON', text => {
    expect(refusal(text).kind).toBe('not-json');
  });

  it.each([null, 3, [], {}, { format: 'other' }, 'null', '"nanhunt.report"'])(
    'refuses %j as no report',
    data => {
      expect(refusal(data).kind).toBe('no-report');
    }
  );

  it.each([2, '1', null, undefined])('refuses version %j and says which it reads', version => {
    const why = refusal({ ...FORWARD, version });
    expect(why).toEqual({ kind: 'version', found: String(version) });
    expect(words.refusal(why)).toContain('reads version 1');
  });

  it.each([
    ['[…]', '['.repeat(100_000) + ']'.repeat(100_000)],
    ['{…}', '{"toString": 1, "valueOf": 1}']
  ])('refuses a version that is %s and has no text', (found, version) => {
    const why = refusal(`{"format": "nanhunt.report", "version": ${version}}`);
    expect(why).toEqual({ kind: 'version', found });
  });

  it('is not led astray by names of JavaScript itself', () => {
    const report = read(
      '{"format": "nanhunt.report", "version": 1, "steps_run": 1,' +
        ' "environment": {"__proto__": "x", "constructor": "y"}}'
    );
    expect([...report.environment]).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y']
    ]);
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
    const inherited = '{"format": "nanhunt.report", "version": 1, "__proto__": {"steps_run": 1}}';
    expect(refusal(inherited)).toMatchObject({ kind: 'damaged', where: 'steps_run' });
  });

  it('refuses what is nested without end', () => {
    const nested = '['.repeat(200_000) + ']'.repeat(200_000);
    const start = '{"format": "nanhunt.report", "version": 1, "steps_run":';
    expect(refusal(`${start} ${nested}}`)).toMatchObject({ kind: 'damaged', where: 'steps_run' });
    expect(refusal(nested).kind).toBe('no-report');
    expect(read(`${start} 1, "later": ${nested}}`).stepsRun).toBe(1);
  });

  it('does not even parse what is far too long', () => {
    expect(refusal(' '.repeat(MOST_CHARACTERS + 1)).kind).toBe('too-long');
  });
});

describe('the decoder of preflights', () => {
  it('reads the facts that Python wrote', () => {
    const preflight = decodePreflight(samples.preflight);
    expect(preflight!.facts.map(fact => fact.severity)).toEqual(['warning', 'warning', 'info']);
    expect(preflight!.facts[0]!.source!.line).toBe(12);
  });

  it.each([{ version: 2 }, { format: 'nanhunt.report' }, { title: 3 }, { facts: [{}] }])(
    'passes over one with %j',
    change => {
      expect(decodePreflight({ ...(samples.preflight as object), ...change })).toBeNull();
    }
  );
});
